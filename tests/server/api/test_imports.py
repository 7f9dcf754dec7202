"""Imports over HTTP: archives, folders, vectors, manifests, and their failures."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as arrow
import pytest
from fastapi.testclient import TestClient
from httpx2 import Response

from server.embedding.batcher import Priority
from tests.server.calls import add, check_problem, nothing_decoded, search
from tests.server.conftest import MAX_IMAGE_BYTES, Start
from tests.server.image_files import TEXT, crop
from tests.server.jobs.uploads import ndjson, parquet, tar, targz, unit_vectors, vector_rows, zipped

TAR, GZIP, ZIP = "application/x-tar", "application/gzip", "application/zip"
NDJSON, PARQUET = "application/x-ndjson", "application/vnd.apache.parquet"

Job = dict[str, Any]


def send(client: TestClient, gallery: str, body: Any, kind: str, **options: str) -> Response:
    """POST an import."""
    url = f"/v1/galleries/{gallery}/imports"
    return client.post(url, content=body, headers={"Content-Type": kind}, params=options)


def finish(client: TestClient, answer: Response) -> Job:
    """Wait for the job of a 202 response and return its final state."""
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == f"/v1/jobs/{answer.json()['id']}"
    events = client.get(f"{answer.headers['location']}/events").text
    states = [json.loads(line.removeprefix("data: ")) for line in events.splitlines() if line.startswith("data: ")]
    assert client.get(answer.headers["location"]).json() == states[-1]
    last: Job = states[-1]
    return last


def run(client: TestClient, gallery: str, body: Any, kind: str, **options: str) -> Job:
    """Import and wait for the end of the job."""
    return finish(client, send(client, gallery, body, kind, **options))


def counts(job: Job) -> tuple[str, int, int, int, int]:
    return job["state"], job["total"], job["done"], job["failed"], job["skipped"]


def failures(client: TestClient, job: Job) -> dict[str, str]:
    """Return failure reasons by entry name."""
    found = client.get(f"/v1/jobs/{job['id']}/failures").json()["failures"]
    return {failure["name"]: failure["error"]["detail"] for failure in found}


def items(client: TestClient, gallery: str) -> dict[str, Job]:
    page = client.get(f"/v1/galleries/{gallery}/items", params={"limit": 1000}).json()
    assert page["next_cursor"] is None
    return {item["id"]: item for item in page["items"]}


@pytest.fixture(scope="module")
def crops() -> Mapping[str, bytes]:
    """Crops of eight people under paths as in common datasets."""
    return {f"day/{person:04}/{person:04}_c{1 + person % 2}_0.png": crop(person) for person in range(8)}


@pytest.mark.parametrize(("kind", "pack"), [(TAR, tar), (GZIP, targz), (ZIP, zipped)])
def test_archive_is_imported_with_metadata_from_its_paths(
    client: TestClient, gallery: str, crops: Mapping[str, bytes], kind: str, pack: Any
) -> None:
    pattern = r"(?P<identity>\d{4})_(?P<camera>c\d)"
    job = run(client, gallery, pack(crops), kind, modality="visible", pattern=pattern)
    assert counts(job) == ("succeeded", 8, 8, 0, 0)
    assert (job["kind"], job["gallery"], job["error"]) == ("import", gallery, None)
    assert job["rate"] > 0
    assert job["finished_at"] >= job["started_at"] >= job["created_at"]
    there = items(client, gallery)
    assert there.keys() == {name.replace("/", ":") for name in crops}
    item = there["day:0003:0003_c2_0.png"]
    assert (item["identity"], item["camera"], item["modality"]) == ("0003", "c2", "visible")
    hit = search(client, gallery, [crop(3)], k=1).json()["hits"][0]
    assert hit["item"]["id"] == item["id"]
    assert hit["score"] > 0.9999
    assert client.get(f"/v1/galleries/{gallery}/items/{item['id']}/image").headers["content-type"] == "image/jpeg"


def test_repeated_import_adds_and_embeds_nothing(client: TestClient, gallery: str, crops: Mapping[str, bytes]) -> None:
    run(client, gallery, tar(crops), TAR)
    before = client.get("/metrics").text
    assert counts(run(client, gallery, zipped(crops), ZIP)) == ("succeeded", 8, 0, 0, 8)
    more = {**crops, "day/0099/new.png": crop(99)}
    assert counts(run(client, gallery, tar(more), TAR)) == ("succeeded", 9, 1, 0, 8)
    embedded = [line for line in before.splitlines() if line.startswith("vireid_batch_images_sum")]
    after = [line for line in client.get("/metrics").text.splitlines() if line.startswith("vireid_batch_images_sum")]
    assert float(after[0].split()[-1]) == float(embedded[0].split()[-1]) + 1


def test_item_added_by_request_is_not_embedded_again_by_an_import(client: TestClient, gallery: str) -> None:
    assert add(client, gallery, [crop(1)], [{"id": "a.png", "modality": "visible"}]).status_code == 201
    assert counts(run(client, gallery, tar({"a.png": crop(1)}), TAR)) == ("succeeded", 1, 0, 0, 1)


def test_second_import_with_other_labels_updates_metadata(
    client: TestClient, gallery: str, crops: Mapping[str, bytes]
) -> None:
    run(client, gallery, tar(crops), TAR, modality="visible")
    vectors = search(client, gallery, [crop(2)], k=8).json()["hits"]
    manifest = "path,identity,captured_at,attributes\n" + "".join(
        f'{name},p{number},2026-11-21T08:30:00Z,"{{""site"": ""north""}}"\n' for number, name in enumerate(crops)
    )
    job = run(client, gallery, tar({**crops, "manifest.csv": manifest.encode()}), TAR, modality="visible")
    assert counts(job) == ("succeeded", 8, 8, 0, 0)
    item = items(client, gallery)["day:0002:0002_c1_0.png"]
    assert (item["identity"], item["captured_at"]) == ("p2", "2026-11-21T08:30:00Z")
    assert item["attributes"] == {"site": "north"}
    again = search(client, gallery, [crop(2)], k=8).json()["hits"]
    assert [hit["score"] for hit in again] == [hit["score"] for hit in vectors]
    assert client.get(f"/v1/galleries/{gallery}/items/{item['id']}/image").status_code == 200
    assert counts(run(client, gallery, tar(crops), TAR)) == ("succeeded", 8, 0, 0, 8)  # states nothing new
    assert items(client, gallery)[item["id"]] == item
    other = run(client, gallery, tar(crops), TAR, modality="infrared")  # another modality needs another vector
    assert counts(other) == ("succeeded", 8, 8, 0, 0)
    assert {item["modality"] for item in items(client, gallery).values()} == {"infrared"}


def test_item_whose_image_changed_is_replaced(client: TestClient, gallery: str) -> None:
    run(client, gallery, tar({"a.png": crop(1)}), TAR)
    job = run(client, gallery, tar({"a.png": crop(2)}), TAR, on_conflict="replace")
    assert (*counts(job), job["replaced"]) == ("succeeded", 1, 1, 0, 0, 1)
    assert search(client, gallery, [crop(2)], k=1).json()["hits"][0]["score"] > 0.9999


@pytest.mark.parametrize("pack", [tar, zipped])
def test_last_of_two_entries_with_one_path_wins(client: TestClient, gallery: str, pack: Any) -> None:
    run(client, gallery, pack({"a.png": crop(2)}), TAR if pack is tar else ZIP)
    twice = {"a.png": crop(1), "./a.png": crop(2)}  # the second is stored already, until the first replaces it
    job = run(client, gallery, pack(twice), TAR if pack is tar else ZIP, on_conflict="replace")
    assert counts(job) == ("succeeded", 2, 2, 0, 0)
    assert search(client, gallery, [crop(2)], k=1).json()["hits"][0]["score"] > 0.9999


def test_invalid_files_fail_with_a_reason_and_others_are_imported(
    client: TestClient, gallery: str, crops: Mapping[str, bytes]
) -> None:
    bad = {"notes.png": TEXT, "empty.png": b"", "large.bmp": bytes(MAX_IMAGE_BYTES + 1)}
    job = run(client, gallery, tar({**crops, **bad, ".hidden.png": TEXT, "__MACOSX/a.png": TEXT}), TAR)
    assert counts(job) == ("succeeded", 11, 8, 3, 0)
    assert failures(client, job) == {
        "notes.png": "Not a JPEG, PNG, WebP, BMP, TIFF, GIF or AVIF image.",
        "empty.png": "The file is empty.",
        "large.bmp": f"It has more than {MAX_IMAGE_BYTES:,} bytes, which are the most that are taken.",
    }
    first = client.get(f"/v1/jobs/{job['id']}/failures", params={"limit": 2}).json()
    second = client.get(f"/v1/jobs/{job['id']}/failures", params={"cursor": first["next_cursor"]}).json()
    assert (len(first["failures"]), len(second["failures"]), second["next_cursor"]) == (2, 1, None)
    check_problem(client.get(f"/v1/jobs/{job['id']}/failures", params={"cursor": "eA=="}), 422, "invalid-request")


def test_manifest_labels_the_files_below_its_folder(client: TestClient, gallery: str) -> None:
    rows = [
        {"path": "x/1.png", "id": "one", "identity": "p1", "modality": "infrared", "camera": "c9"},
        {"path": "./x//2.png", "captured_at": "2026-11-21T08:30:00Z", "attributes": {"floor": 2}},
        {"path": "3.png", "captured_at": "2026-11-21T08:30:00"},
        {"path": "4.png", "identity": "a"},
        {"path": "4.png", "identity": "b"},
        {"path": "gone.png", "identity": "p5"},
        {"path": "../up.png"},
        ["no object"],
    ]
    lines = "\n".join(map(json.dumps, rows)).encode() + b"\n\n{broken\n"
    files = {f"set/{name}": crop(1) for name in ("x/1.png", "x/2.png", "3.png", "4.png", "unnamed.png")}
    job = run(client, gallery, tar({**files, "set/manifest.jsonl": lines}), TAR, modality="visible")
    assert counts(job) == ("succeeded", 9, 3, 6, 0)
    there = items(client, gallery)
    assert there.keys() == {"one", "set:x:2.png", "set:unnamed.png"}
    assert (there["one"]["identity"], there["one"]["modality"], there["one"]["camera"]) == ("p1", "infrared", "c9")
    assert (there["set:x:2.png"]["attributes"], there["set:x:2.png"]["modality"]) == ({"floor": 2}, "visible")
    assert failures(client, job) == {
        "set/3.png": "set/manifest.jsonl[3].captured_at must have a time zone, such as Z.",
        "set/4.png": "Lines 4 and 5 of set/manifest.jsonl both name it.",
        "set/manifest.jsonl[6]": "There is no file gone.png.",
        "set/manifest.jsonl[7]": "There is no file ../up.png.",
        "set/manifest.jsonl[8]": "body must be an object.",
        "set/manifest.jsonl[10]": "body must be an object.",
    }


@pytest.mark.parametrize(
    ("name", "manifest", "reason"),
    [
        ("manifest.csv", b"path,identiy\na.png,1\n", "has the column identiy; identity may be meant"),
        ("manifest.csv", b"path,Path\na.png,b.png\n", "has two columns path"),
        ("manifest.csv", b"path,identity\na.png\n", "Line 2 of manifest.csv has not as many cells as the first."),
        ("manifest.csv", b"path\na.png\nb\xff\n", "Manifest.csv is not what its name says, in UTF-8."),
        ("manifest.csv", b'path\n"a.png\n', "is not what its name says"),
        ("manifest.csv", b"", "Manifest.csv is empty; its first line must name columns"),
        ("manifest.jsonl", b'{"path": "' + b"a" * 70_000, "a line of more than 65,536 bytes"),
        ("manifest.jsonl", b"".join(b'{"path": "%d"}\n' % n for n in range(1100)), "More than 1,000 rows"),
    ],
)
def test_unusable_manifest_fails_the_import_before_anything_is_stored(
    client: TestClient, gallery: str, name: str, manifest: bytes, reason: str
) -> None:
    job = run(client, gallery, tar({"a.png": crop(1), name: manifest}), TAR)
    assert (job["state"], job["done"]) == ("failed", 0)
    assert reason in job["error"]
    assert items(client, gallery) == {}


def test_two_manifests_fail_the_import(client: TestClient, gallery: str) -> None:
    both = {"manifest.csv": b"path\n", "x/manifest.jsonl": b""}
    assert "two manifests" in run(client, gallery, zipped(both), ZIP)["error"]


@pytest.mark.parametrize(
    ("pattern", "fault"),
    [
        ("(", "RE2"), (r"(\d+)", "RE2"), (r"\d+", "groups such as"), (r"(?P<colour>red)", "groups such as"),
        (r"(?P<id>a)(?=b)", "RE2"), ("a" * 1025, "at most 1024 characters"),
    ],
)  # fmt: skip
def test_unusable_pattern_is_refused_immediately(client: TestClient, gallery: str, pattern: str, fault: str) -> None:
    problem = check_problem(send(client, gallery, tar({}), TAR, pattern=pattern), 422, "invalid-request")
    assert (problem["errors"][0]["field"], fault in problem["errors"][0]["detail"]) == ("pattern", True)


def test_path_that_the_pattern_does_not_match_fails_and_matching_takes_linear_time(
    client: TestClient, gallery: str
) -> None:
    files = {"p7.png": crop(7), f"{'a' * 900}.png": crop(1), "x.png": crop(2)}
    job = run(client, gallery, tar(files), TAR, pattern=r"^(?P<identity>p\d)|(?P<id>(?:a+)+)$")
    assert counts(job) == ("succeeded", 3, 1, 2, 0)
    assert set(failures(client, job).values()) == {"The pattern does not match its path."}
    assert items(client, gallery)["p7.png"]["identity"] == "p7"


@pytest.mark.parametrize("kind", [NDJSON, PARQUET])
def test_precomputed_vectors_are_imported_once(client: TestClient, gallery: str, kind: str) -> None:
    rows = vector_rows(2100)
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    body = ndjson(rows) if kind == NDJSON else parquet(columns)
    assert counts(run(client, gallery, body, kind)) == ("succeeded", 2100, 2100, 0, 0)
    answer = client.post(f"/v1/galleries/{gallery}/search", json={"item_id": "v00005", "query": {"k": 1000}}).json()
    vectors = unit_vectors(2100)
    scores = np.delete(vectors @ vectors[5], 5)
    np.testing.assert_allclose([hit["score"] for hit in answer["hits"]], np.sort(scores)[::-1][:1000], atol=1e-6)
    assert client.get(f"/v1/galleries/{gallery}/items/v00005").json()["identity"] == "p5"
    assert counts(run(client, gallery, body, kind)) == ("succeeded", 2100, 0, 0, 2100)
    rows[7]["identity"], rows[8]["identity"], rows[9]["modality"] = "another", None, "visible"
    assert counts(run(client, gallery, ndjson(rows), NDJSON)) == ("succeeded", 2100, 2, 0, 2098)
    of = [client.get(f"/v1/galleries/{gallery}/items/v0000{n}").json() for n in (7, 8, 9)]
    assert [(item["identity"], item["modality"]) for item in of] == [
        ("another", "infrared"), ("p1", "infrared"), ("p2", "visible"),
    ]  # fmt: skip


def test_invalid_lines_fail_and_others_are_imported(client: TestClient, gallery: str) -> None:
    good, other = vector_rows(2)
    lines = [
        json.dumps(good).encode(), b"", b"{broken", json.dumps({**other, "vector": [1.0, 0.0]}).encode(),
        json.dumps({**other, "vector": [3.0] * 48}).encode(), json.dumps({**other, "id": None}).encode(),
        json.dumps({**other, "colour": "red"}).encode(), b'"' + b"x" * 5_000_000 + b'"', b"  ",
        json.dumps({**other, "id": "last"}).encode(),
    ]  # fmt: skip
    job = run(client, gallery, b"\n".join(lines), NDJSON)
    assert counts(job) == ("succeeded", 8, 2, 6, 0)
    assert items(client, gallery).keys() == {good["id"], "last"}
    reasons = failures(client, job)
    assert list(reasons) == [f"line {line}" for line in (3, 4, 5, 6, 7, 8)]
    assert reasons["line 3"] == "body is not valid JSON."
    assert "48 numbers" in reasons["line 4"]
    assert "unit vector" in reasons["line 5"]
    assert reasons["line 6"] == "id is required in an import."
    assert reasons["line 7"] == "colour is not a known field."
    assert reasons["line 8"] == "It has more than 4,194,304 bytes."


def test_parquet_column_types(client: TestClient, gallery: str) -> None:
    vectors = unit_vectors(6)
    flat = arrow.array(vectors[:5].ravel())
    whole = {
        "id": arrow.array(["a", "b", "c", "d", "e"]).dictionary_encode(),
        "modality": ["visible", "infrared", "visible", "thermal", None],
        "captured_at": arrow.array([1_700_000_000_000_000_123, None] + [0] * 3, arrow.timestamp("ns", "UTC")),
        "attributes": ['{"site": "north"}', None, "{broken", None, None],
        "vector": arrow.FixedSizeListArray.from_arrays(flat, vectors.shape[1]),
    }
    job = run(client, gallery, parquet(whole), PARQUET)
    assert counts(job) == ("succeeded", 5, 2, 3, 0)
    assert failures(client, job) == {
        "row 3": "attributes is not valid JSON.",
        "row 4": "modality must be 'visible' or 'infrared'.",
        "row 5": "modality is required.",
    }
    there = items(client, gallery)
    assert (there["a"]["captured_at"], there["a"]["attributes"]) == ("2023-11-14T22:13:20Z", {"site": "north"})
    lists = [vectors[5].tolist(), None, [1.0, 2.0], [None] * 48, [0.0] * 48]
    ragged = {
        "id": ["f", "g", "h", "i", "j"],
        "modality": ["visible"] * 5,
        "attributes": [{"floor": 1, "site": None}] + [None] * 4,
        "vector": arrow.array(lists, arrow.list_(arrow.float64())),
    }
    job = run(client, gallery, parquet(ragged), PARQUET)
    assert counts(job) == ("succeeded", 5, 1, 4, 0)
    assert items(client, gallery)["f"]["attributes"] == {"floor": 1}
    assert "not finite" in failures(client, job)["row 4"]
    assert "unit vector" in failures(client, job)["row 5"]
    stored = client.post(f"/v1/galleries/{gallery}/search", json={"vector": lists[0], "modality": "visible"}).json()
    assert (stored["hits"][0]["item"]["id"], stored["hits"][0]["score"] > 0.99999) == ("f", True)


@pytest.mark.parametrize(
    ("kind", "body", "reason"),
    [
        (TAR, TEXT, "It is not a tar archive, or it is damaged or cut off."),
        (TAR, b"", "It is not a tar archive, or it is damaged or cut off."),
        (ZIP, TEXT, "It is not a zip archive, or it is damaged or cut off."),
        (GZIP, b"\x1f\x8b" + TEXT, "It is not a tar archive."),
        (PARQUET, TEXT, "It is not a Parquet file, or it is damaged."),
        (PARQUET, parquet({"id": ["a"], "vector": [[1.0]]}), "It has no column modality."),
        (PARQUET, parquet({"id": ["a"], "modality": ["visible"], "vectr": [[1.0]]}), "the column vectr; vector may"),
        (PARQUET, parquet({"id": ["a"], "modality": ["visible"], "vector": ["x"]}), "damaged"),
    ],
)  # fmt: skip
def test_body_of_another_format_fails_with_a_reason(
    client: TestClient, gallery: str, kind: str, body: bytes, reason: str
) -> None:
    job = run(client, gallery, body, kind)
    assert (job["state"], job["done"]) == ("failed", 0)
    assert reason in job["error"]


def test_impossible_import_requests_are_refused(client: TestClient, gallery: str) -> None:
    check_problem(send(client, gallery, b"", "text/plain"), 415, "body-type-unsupported")
    check_problem(send(client, "nowhere", tar({}), TAR), 404, "gallery-not-found")
    check_problem(send(client, gallery, b"", NDJSON, fingerprint="0" * 64), 409, "model-mismatch")
    check_problem(send(client, gallery, b"", NDJSON, pattern="(?P<id>.)"), 422, "invalid-request")
    check_problem(send(client, gallery, b"", TAR, modality="thermal"), 422, "invalid-request")
    check_problem(send(client, gallery, b'{"directory": "/"}', "application/json"), 422, "invalid-request")
    check_problem(send(client, gallery, b"{}", "application/json"), 422, "invalid-request")


def test_import_bodies_have_their_own_size_limit(start: Start, tmp_path: Path) -> None:
    with start(max_body_bytes=20_000, max_import_bytes=200_000) as client:
        client.post("/v1/galleries", json={"name": "g"})
        assert client.get("/v1/limits").json()["max_import_bytes"] == 200_000
        files = {f"{person}.png": crop(person) for person in range(4)}
        body = tar(files)
        assert 20_000 < len(body) < 200_000
        assert run(client, "g", body, TAR)["done"] == 4
        check_problem(send(client, "g", bytes(200_001), TAR), 413, "body-too-large")
        check_problem(send(client, "g", iter([bytes(100_000)] * 3), TAR), 413, "body-too-large")
        check_problem(send(client, "g", bytes(20_001), "application/json"), 413, "body-too-large")
        check_problem(client.post("/v1/galleries/g/vectors", content=bytes(20_001)), 413, "body-too-large")
    assert list((tmp_path / "data" / "jobs").iterdir()) == []


def test_only_folders_below_an_import_root_are_imported(start: Start, tmp_path: Path) -> None:
    inside, outside = tmp_path / "roots" / "night", tmp_path / "outside"
    for folder in (inside / "0001", outside):
        folder.mkdir(parents=True)
        (folder / "crop.png").write_bytes(crop(1))
    (inside / ".hidden").mkdir()
    (inside / ".hidden" / "crop.png").write_bytes(crop(1))
    (inside / "link.png").symlink_to(outside / "crop.png")
    (inside / "linked").symlink_to(outside)
    (inside.parent / "away").symlink_to(outside)
    os.mkfifo(inside / "pipe.png")
    (inside / "manifest.csv").write_text("path,identity\n0001/crop.png,p1\n")
    with start(import_roots=(tmp_path / "roots",)) as client:
        client.post("/v1/galleries", json={"name": "g"})
        for wrong in (outside, inside.parent / "away", inside / "..", inside / "none", inside / "link.png", "night"):
            body = json.dumps({"directory": str(wrong)}).encode()
            if wrong == inside / "..":  # is the root itself
                continue
            problem = check_problem(send(client, "g", body, "application/json"), 422, "invalid-request")
            assert problem["errors"] == [
                {
                    "field": "directory",
                    "detail": "is no folder that may be imported; VIREID_IMPORT_ROOTS names where those are",
                }
            ]
        body = json.dumps({"directory": str(inside), "pattern": r"(?P<camera>\d+)/|(?P<id>l)"}).encode()
        job = run(client, "g", body, "application/json")
        assert counts(job) == ("succeeded", 3, 1, 2, 0)
        assert failures(client, job) == {
            "link.png": "It is a link, or cannot be read.",
            "pipe.png": "It is no plain file.",
        }
        (item,) = items(client, "g").values()
        assert (item["id"], item["identity"], item["camera"]) == ("0001:crop.png", "p1", "0001")
        assert counts(run(client, "g", body, "application/json")) == ("succeeded", 3, 0, 2, 1)


def test_upload_on_full_disk_is_refused_and_leaves_nothing_behind(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    with start() as client:
        client.post("/v1/galleries", json={"name": "g"})
        monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10_000))
        check_problem(send(client, "g", bytes(10_001), TAR), 507, "storage-full")
        folder = client.app.state.service.settings.data_dir / "jobs"  # type: ignore[attr-defined]
        assert list(folder.iterdir()) == []
        assert client.get("/v1/jobs").json()["jobs"] == []


def test_query_does_not_wait_for_crops_of_an_import(client: TestClient, gallery: str) -> None:
    with nothing_decoded(client, Priority.IMPORT):
        started = send(client, gallery, tar({"a.png": crop(1)}), TAR)
        assert search(client, gallery, [crop(1)]).json()["hits"] == []
        assert client.get(started.headers["location"]).json()["done"] == 0
    assert finish(client, started)["done"] == 1
