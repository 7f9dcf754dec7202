"""Archives of galleries and their restoration."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response

from models.card import Modality
from server.domain.types import NewItem, VectorType
from server.gallery import archive as portable
from server.gallery.galleries import Galleries
from server.storage.sql_store import SqlStore
from tests.server.api.test_imports import Job, finish
from tests.server.calls import add_people, check_problem, search
from tests.server.conftest import Start
from tests.server.gallery.builders import new_items, unit_vectors
from tests.server.image_files import TEXT, crop
from tests.server.jobs.uploads import tar
from tests.server.jobs.workers import wait_for_dead_worker

TAR = "application/x-tar"
ITEMS = 25
DIMENSION = 7
WEBP = b"RIFF\x00\x00\x00\x00WEBP"


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(portable, "MAX_PART_ITEMS", 10)


def galleries_of(client: TestClient) -> Galleries:
    found: Galleries = client.app.state.service.galleries  # type: ignore[attr-defined]
    return found


def everything(client: TestClient, name: str) -> dict[str, tuple[object, ...]]:
    """Return everything that the store holds of each item."""
    with galleries_of(client).query.dump(name) as (_, items):
        return {new.item.id: (new.item, new.vector.tobytes(), new.thumbnail, new.stored_at) for new in items}


def stored(count: int, vector_type: VectorType) -> Iterator[NewItem]:
    """Return varied items that were stored long ago."""
    vectors = unit_vectors(count, DIMENSION)
    for number, new in enumerate(new_items(count, vectors=vectors)):
        thumbnail = WEBP + (new.thumbnail or b"") if number % 3 else None
        yield NewItem(new.item, new.vector, thumbnail, datetime(2026, 1, 1, 0, 0, 0, number, tzinfo=UTC))


@pytest.fixture(params=list(VectorType))
def filled(request: pytest.FixtureRequest, client: TestClient, gallery: str) -> str:
    """A gallery of a model that is not loaded, with varied items."""
    galleries, name = galleries_of(client), f"{gallery}-filled"
    galleries.catalog.create(
        name, model="unknown", fingerprint="9" * 64, dimension=DIMENSION, retention_days=3650, description="Döor",
        vector_type=request.param,
    )  # fmt: skip
    galleries.writer.put(name, list(stored(ITEMS, request.param)), fingerprint="9" * 64)
    return name


def snapshot(client: TestClient, name: str) -> bytes:
    answer = client.get(f"/v1/galleries/{name}/snapshot")
    assert (answer.status_code, answer.headers["content-type"]) == (200, TAR)
    assert answer.headers["content-disposition"] == f'attachment; filename="{name}.tar"'
    return answer.content


def send(client: TestClient, name: str, body: bytes, kind: str = TAR) -> Response:
    return client.post(f"/v1/galleries/{name}/restore", content=body, headers={"Content-Type": kind})


def restore(client: TestClient, name: str, body: bytes) -> Job:
    return finish(client, send(client, name, body))


def members(body: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(body)) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]


def resealed(parts: dict[str, bytes]) -> bytes:
    """Return an archive of these members with correct checksums."""
    parts.pop("SHA256SUMS", None)
    lines = "".join(f"{sha256(data).hexdigest()}  {name}\n" for name, data in parts.items())
    return tar({**parts, "SHA256SUMS": lines.encode()})


def test_restored_gallery_is_bitwise_equal(client: TestClient, filled: str) -> None:
    job = restore(client, f"{filled}-2", snapshot(client, filled))
    assert (job["state"], job["total"], job["done"]) == ("succeeded", ITEMS, ITEMS)
    assert len(everything(client, filled)) == ITEMS
    assert everything(client, f"{filled}-2") == everything(client, filled)
    one, other = (client.get(f"/v1/galleries/{name}").json() for name in (filled, f"{filled}-2"))
    assert one | {"name": "", "created_at": ""} == other | {"name": "", "created_at": ""}
    body = {"query": {"k": 5}, "item_id": "item-003"}
    answers = [client.post(f"/v1/galleries/{name}/search", json=body).json() for name in (filled, f"{filled}-2")]
    assert len(answers[0]["hits"]) == 5
    assert answers[0]["hits"] == answers[1]["hits"]
    actions = [entry["action"] for entry in client.get("/v1/audit").json()["entries"]]
    assert {"gallery.snapshot", "job.create", "job.end"} <= set(actions)


def test_archive_can_be_verified_and_read_with_standard_tools(client: TestClient, filled: str, tmp_path: Path) -> None:
    body = snapshot(client, filled)
    with tarfile.open(fileobj=io.BytesIO(body)) as archive:
        archive.extractall(tmp_path, filter="data")
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=tmp_path, check=True, capture_output=True)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert (manifest["version"], manifest["items"], manifest["gallery"]["fingerprint"]) == (1, ITEMS, "9" * 64)
    assert [part["items"] for part in manifest["parts"]] == [10, 10, 5]
    assert list(members(body)) == [*(part["name"] for part in manifest["parts"]), "manifest.json", "SHA256SUMS"]


def test_empty_gallery_and_gallery_of_images_are_restored(client: TestClient, gallery: str) -> None:
    assert restore(client, f"{gallery}-empty", snapshot(client, gallery))["state"] == "succeeded"
    assert client.get(f"/v1/galleries/{gallery}-empty").json()["items"] == 0
    add_people(client, gallery, range(4), Modality.VISIBLE)
    restore(client, f"{gallery}-2", snapshot(client, gallery))
    assert everything(client, f"{gallery}-2") == everything(client, gallery)
    hits = search(client, f"{gallery}-2", [crop(2, seed=9)], "visible").json()["hits"]
    assert hits[0]["item"]["id"] == "p2"
    assert client.get(f"/v1/galleries/{gallery}-2/items/p2/image").headers["content-type"] == "image/jpeg"


def test_retention_counts_from_the_original_time(client: TestClient, filled: str) -> None:
    restore(client, f"{filled}-2", snapshot(client, filled))
    moment = datetime(2026, 1, 1, 0, 0, 0, 10, tzinfo=UTC) + timedelta(days=3650)
    assert galleries_of(client).erasure.expire(moment)[f"{filled}-2"] == 10


def changed(name: str, change: Callable[[bytes], bytes], *, sealed: bool) -> Callable[[bytes], bytes]:
    def damage(body: bytes) -> bytes:
        parts = members(body)
        parts[name] = change(parts[name])
        return resealed(parts) if sealed else tar(parts)

    return damage


def manifest(**changes: Any) -> Callable[[bytes], bytes]:
    return changed("manifest.json", lambda data: json.dumps({**json.loads(data), **changes}).encode(), sealed=True)


def flipped(data: bytes) -> bytes:
    return data[:300] + bytes([data[300] ^ 1]) + data[301:]


def without(name: str) -> Callable[[bytes], bytes]:
    return lambda body: resealed({other: data for other, data in members(body).items() if other != name})


def twice(body: bytes) -> bytes:
    parts = members(body)
    parts["items-00001.parquet"] = parts["items-00000.parquet"]
    return resealed(parts)


DAMAGES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "flipped": (changed("items-00001.parquet", flipped, sealed=False), "items-00001.parquet is not what its checksum"),
    "foreign part": (changed("items-00001.parquet", lambda _: TEXT, sealed=True), "items-00001.parquet cannot be read"),
    "flipped details": (changed("manifest.json", flipped, sealed=False), "manifest.json is not what its checksum"),
    "no details": (changed("manifest.json", lambda _: b"[]", sealed=True), "manifest.json cannot be read"),
    "other count": (manifest(items=ITEMS + 1), "manifest.json cannot be read"),
    "newer": (manifest(version=2), "format version 2; this server reads version 1"),
    "sums": (changed("SHA256SUMS", lambda data: data + data, sealed=False), "SHA256SUMS names other members"),
    "missing": (without("items-00001.parquet"), "manifest.json cannot be read"),
    "cut off": (lambda body: body[: len(body) // 2], "damaged or cut off"),
    "cut between": (lambda body: body[: 512 * (1 + -(-len(members(body)["items-00000.parquet"]) // 512))], "cut off"),
    "foreign tar": (lambda _: tar({"a.png": crop(1)}), "no snapshot of a gallery"),
    "no tar": (lambda _: TEXT, "not a tar archive"),
    "same ids": (twice, "same id"),
}  # fmt: skip


@pytest.mark.parametrize("filled", [VectorType.FLOAT32], indirect=True)
@pytest.mark.parametrize("kind", DAMAGES)
def test_damaged_archive_leaves_no_gallery(client: TestClient, filled: str, kind: str) -> None:
    damage, reason = DAMAGES[kind]
    job = restore(client, f"{filled}-2", damage(snapshot(client, filled)))
    assert (job["state"], reason in job["error"]) == ("failed", True), job["error"]
    check_problem(client.get(f"/v1/galleries/{filled}-2"), 404, "gallery-not-found")
    assert restore(client, f"{filled}-2", snapshot(client, filled))["state"] == "succeeded"  # one after the other
    assert galleries_of(client)._store.drafts() == []


def test_restore_creates_a_new_gallery_or_is_rejected(client: TestClient, gallery: str) -> None:
    body = snapshot(client, gallery)
    check_problem(send(client, gallery, body), 409, "gallery-exists")
    assert client.put(f"/v1/aliases/{gallery}-a", json={"gallery": gallery}).status_code == 200
    check_problem(send(client, f"{gallery}-a", body), 409, "alias-exists")
    check_problem(send(client, f"{gallery}-2", body, "application/zip"), 415, "body-type-unsupported")
    check_problem(client.get("/v1/galleries/nowhere/snapshot"), 404, "gallery-not-found")


def test_archive_requires_admin_scope_and_restore_write_scope(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    with start(auth="required") as client:
        admin = {"Authorization": f"Bearer {capsys.readouterr().out.strip().splitlines()[-1].strip()}"}
        client.post("/v1/galleries", json={"name": "g"}, headers=admin)
        made = client.post("/v1/keys", json={"name": "k", "scopes": ["search", "write"]}, headers=admin).json()
        writer = {"Authorization": f"Bearer {made['secret']}", "Content-Type": TAR}
        assert client.get("/v1/galleries/g/snapshot", headers=writer).status_code == 403
        body = client.get("/v1/galleries/g/snapshot", headers=admin).content
        assert client.post("/v1/galleries/g2/restore", content=body, headers=writer).status_code == 202


class Crashed(BaseException):
    """Simulates a crash of the server."""


@pytest.mark.parametrize(
    ("moment", "done"),
    [
        ("put", True),
        ("rename_gallery", True),
        *(pytest.param(*one, marks=pytest.mark.slow)
          for one in (("create_gallery", False), ("create_gallery", True), ("put", False), ("rename_gallery", False))),
    ],
)  # fmt: skip
def test_restore_resumes_after_a_crash_at_any_step(
    start: Start, monkeypatch: pytest.MonkeyPatch, moment: str, done: bool
) -> None:
    """The worker dies silently before or after a step; the next start finds the job running."""
    real, reached = getattr(SqlStore, moment), Event()

    def dying(self: SqlStore, *args: Any) -> Any:
        if done:
            real(self, *args)
        reached.set()
        raise Crashed

    with start() as client:
        galleries = galleries_of(client)
        galleries.catalog.create("g", model="unknown", fingerprint="9" * 64, dimension=DIMENSION)
        galleries.writer.put("g", list(stored(ITEMS, VectorType.FLOAT32)), fingerprint="9" * 64)
        before, body = everything(client, "g"), snapshot(client, "g")
        with monkeypatch.context() as patch:
            patch.setattr("threading.excepthook", lambda _: None)
            patch.setattr(SqlStore, moment, dying)
            id = send(client, "g2", body).json()["id"]
            assert reached.wait(20)
            wait_for_dead_worker(client.app.state.service.jobs, 20)  # type: ignore[attr-defined]
            assert ("g2" in galleries.loader.progress()) == (moment == "rename_gallery" and done)
    with start() as client:
        assert '"state":"succeeded"' in client.get(f"/v1/jobs/{id}/events").text.replace(" ", "")
        assert everything(client, "g2") == before
        assert galleries_of(client)._store.drafts() == []
