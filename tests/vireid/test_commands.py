"""The commands, run against a real server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx2
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from models.card import Modality
from server.runner import bind
from tests.drawing import write_people
from tests.server.image_files import TEXT, crop
from vireid.cli import app
from vireid.client import Client, ClientError

VIREID = [sys.executable, "-c", "from vireid.cli import main; main()"]


def vireid(*words: str, url: str | None = None, env: Mapping[str, str | None] | None = None, stdin: str = "") -> Result:
    settings = {"VIREIDCLI_URL": url, "COLUMNS": "200", **(env or {})}
    return CliRunner().invoke(app, words, env=settings, input=stdin)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """16 infrared crops."""
    return write_people(tmp_path / "crops", range(4), modalities=[Modality.INFRARED])


@pytest.fixture
def query(tmp_path: Path) -> Path:
    path = tmp_path / "query.png"
    path.write_bytes(crop(3))
    return path


def test_importing_the_command_does_not_load_torch_the_server_or_yaml() -> None:
    script = "import sys, vireid.cli; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert not loaded & {"torch", "yaml", "server", "training", "onnxruntime", "faiss", "fastapi", "uvicorn"}


def test_the_help_lists_serving_and_training_commands() -> None:
    help_text = vireid("--help").output
    for command in ("serve", "demo", "index", "search", "embed", "gallery", "keys", "doctor", "train", "export"):
        assert f" {command} " in help_text


def test_index_sends_a_folder_once_and_continues_where_it_stopped(url: str, folder: Path) -> None:
    name = f"g-{uuid.uuid4().hex}"
    words = ("index", str(folder), "-g", name, "--modality", "infrared", "--camera-pattern", r"_(c\d)")
    first = vireid(*words, url=url)
    assert (first.exit_code, first.stdout.strip()) == (0, f"{name}: 16 added, 0 replaced, 0 there already, 0 failed")
    write_people(folder, [7], modalities=[Modality.INFRARED])
    again = vireid(*words, url=url)
    assert again.stdout.strip() == f"{name}: 4 added, 0 replaced, 16 there already, 0 failed"
    assert vireid(*words, "--replace", url=url).stdout.startswith(f"{name}: 0 added, 20 replaced, 0 there already")


def test_index_lists_an_invalid_file_sends_the_others_and_exits_with_1(url: str, gallery: str, folder: Path) -> None:
    (folder / "broken[1].jpg").write_bytes(TEXT)
    done = vireid("index", str(folder), "-g", gallery, "--identity-pattern", r"/(\d{4})/", url=url)
    assert done.exit_code == 1
    assert f"{gallery}: 16 added, 0 replaced, 0 there already, 1 failed" in done.stdout
    assert "broken[1].jpg" in done.stdout
    assert "Not a JPEG, PNG, WebP, BMP, TIFF, GIF or AVIF image." in done.stdout
    assert r"warning: /(\d{4})/ finds no identity in 1 of 17 files" in done.stderr


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--no-create", "-g", "nowhere"], 1, "error: 404 Gallery not found"),
        (["-g", "g", "--camera-pattern", "("], 2, "error: ( is not a regular expression"),
        (["-g", "no/name"], 1, "error: 4"),
        (["-g", ".."], 1, "error: '..' is not a name or id"),
    ],
)
def test_an_error_before_indexing_is_reported_in_one_line(
    url: str, folder: Path, words: list[str], code: int, message: str
) -> None:
    done = vireid("index", str(folder), *words, url=url)
    assert done.exit_code == code
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1


def test_search_prints_hits_groups_or_json(url: str, gallery: str, folder: Path, query: Path) -> None:
    patterns = ("--identity-pattern", r"/(\d{4})/", "--camera-pattern", r"_(c\d)")
    vireid("index", str(folder), "-g", gallery, *patterns, url=url)
    words = ("search", str(query), "-g", gallery, "--modality", "visible", "--among", "opposite")
    shown = vireid(*words, "-k", "3", url=url)
    assert shown.exit_code == 0
    assert "visible query among 16 items" in shown.stdout
    assert "infrared:0003:0003_c3_" in shown.stdout
    answer = json.loads(vireid(*words, "--json", "--exclude-camera", "c3", url=url).stdout)
    assert (answer["searched"], answer["hits"][0]["item"]["camera"]) == (8, "c4")
    assert json.loads(vireid(*words, "--json", "--camera", "c9", url=url).stdout)["hits"] == []
    grouped = vireid(*words, "--group", url=url).stdout.splitlines()
    assert [line.split()[1] for line in grouped[2:]].count("0003") == 1


def test_search_joins_pages_beyond_the_limit_and_reranks_on_request(
    url: str, client: Client, gallery: str, folder: Path, query: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vireid("index", str(folder), "-g", gallery, "--identity-pattern", r"/(\d{4})/", url=url)
    words = ("search", str(query), "-g", gallery, "--modality", "visible", "--json")
    whole = json.loads(vireid(*words, "-k", "16", url=url).stdout)
    limits = client.limits().model_copy(update={"max_k": 3})
    monkeypatch.setattr(Client, "limits", lambda _: limits)
    for k in (7, 2000):
        assert json.loads(vireid(*words, "-k", str(k), url=url).stdout)["hits"] == whole["hits"][:k]
    others = json.loads(vireid(*words, "-k", "16", "--exclude-identity", "0003", url=url).stdout)["hits"]
    assert {hit["item"]["identity"] for hit in others} == {"0000", "0001", "0002"}
    reranked = json.loads(vireid(*words, "--rerank", "-k", "16", url=url).stdout)
    assert reranked["reranked"]
    assert {hit["item"]["id"] for hit in reranked["hits"]} == {hit["item"]["id"] for hit in whole["hits"]}


def test_search_names_an_invalid_query_image(url: str, gallery: str, tmp_path: Path, query: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(TEXT)
    done = vireid("search", str(query), str(bad), "-g", gallery, url=url)
    assert done.exit_code == 1
    assert f"{bad}: Not a JPEG" in done.stderr
    assert "Traceback" not in done.output


def test_embed_writes_a_file_of_exactly_the_given_name(url: str, tmp_path: Path, query: Path) -> None:
    out = tmp_path / "vectors.bin"
    assert vireid("embed", str(query), str(query), "-o", str(out), url=url).exit_code == 0
    vectors = np.load(out)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), [1, 1], rtol=1e-5)


def test_a_gallery_is_deleted_only_after_confirmation(url: str, client: Client) -> None:
    name = f"g-{uuid.uuid4().hex}"
    assert vireid("gallery", "create", name, "--description", "[bold]x", url=url).exit_code == 0
    assert vireid("gallery", "create", name, url=url).stderr.startswith("error: 409 Gallery exists")
    listed = next(line for line in vireid("gallery", "list", url=url).stdout.splitlines() if name in line)
    assert "[bold]x" in listed
    assert json.loads(vireid("gallery", "show", name, url=url).stdout)["items"] == 0
    assert vireid("gallery", "delete", name, url=url, stdin="n\n").exit_code == 1
    assert client.gallery(name).name == name
    assert vireid("gallery", "delete", name, "--yes", url=url).exit_code == 0
    assert name not in [gallery.name for gallery in client.galleries()]


def test_key_creation_prints_only_the_secret_to_standard_output(url: str, gallery: str) -> None:
    created = vireid("keys", "create", "bob", "--scope", "search", "--scope", "write", "--gallery", gallery, url=url)
    assert created.stdout.startswith("vireid_")
    assert len(created.stdout.split()) == 1
    key_id = created.stderr.split()[0]
    line = next(line for line in vireid("keys", "list", url=url).stdout.splitlines() if key_id in line)
    assert line.split()[1:5] == ["bob", "search,", "write", gallery]
    rotated = vireid("keys", "rotate", key_id, "--expires", "90d", url=url)
    assert rotated.stdout.startswith("vireid_")
    assert rotated.stdout != created.stdout
    assert vireid("keys", "rotate", key_id, "--expires", "soon", url=url).exit_code == 2
    assert vireid("keys", "delete", key_id, url=url).exit_code == 0
    assert vireid("keys", "delete", key_id, url=url).stderr.startswith("error: 404 Key not found")


def test_audit_log_is_listed_verified_and_exported(url: str, gallery: str, tmp_path: Path) -> None:
    listed = vireid("audit", "list", "--limit", "1", url=url)
    assert len(listed.stdout.splitlines()) == 2
    verified = vireid("audit", "verify", url=url)
    assert verified.exit_code == 0
    noted = verified.stdout.strip()
    assert vireid("audit", "verify", "--noted", noted, url=url).exit_code == 0
    forged = noted.partition(":")[0] + ":" + "0" * 64
    assert vireid("audit", "verify", "--noted", forged, url=url).exit_code == 1
    assert vireid("audit", "verify", "--noted", "x", url=url).exit_code == 2
    file = tmp_path / "audit.jsonl"
    assert vireid("audit", "export", "--output", str(file), url=url).exit_code == 0
    entries = [json.loads(line) for line in file.read_text().splitlines()]
    assert f"{entries[0]['number']}:{entries[0]['digest']}" == noted
    assert gallery in [entry["gallery"] for entry in entries]


def test_an_unreachable_server_is_reported_in_one_line() -> None:
    with bind("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
    done = vireid("gallery", "list", url=f"http://127.0.0.1:{port}")
    assert done.exit_code == 1
    assert done.stderr == (
        f"error: no answer from http://127.0.0.1:{port}: [Errno 111] Connection refused. "
        "Start a server with: vireid serve; or name another one by --url or VIREIDCLI_URL\n"
    )


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({"VIREID_PROT": "1"}, "unknown setting VIREID_PROT; did you mean VIREID_PORT"),
        ({"VIREID_PORT": "many"}, "VIREID_PORT: Input should be a valid integer"),
        ({"VIREID_HOST": "0.0.0.0", "VIREID_AUTH": "off"}, "VIREID_AUTH=off is refused"),
    ],
)
def test_serve_with_invalid_settings_prints_one_line_and_exits_with_2(env: dict[str, str], message: str) -> None:
    done = vireid("serve", env=env)
    assert done.exit_code == 2
    assert done.stderr.startswith(f"error: {message}")
    assert done.stderr.count("\n") == 1


@contextmanager
def running_server(folder: Path, model_dir: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run ``vireid serve`` in a process and yield it with its address when it is ready."""
    with bind("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
    env = os.environ | {"VIREID_DATA_DIR": str(folder), "VIREID_MODEL_DIR": str(model_dir)}
    process = subprocess.Popen(
        [*VIREID, "serve", "--port", str(port)], env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        with Client(f"http://127.0.0.1:{port}") as client:
            deadline = time.monotonic() + 120
            while True:
                try:
                    assert client.ready().ready
                    break
                except ClientError:
                    assert time.monotonic() < deadline
                    assert process.poll() is None, process.communicate()
                    time.sleep(0.1)
        yield process, f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.communicate()


def test_serve_prints_its_address_logs_json_and_stops_on_sigterm(tmp_path: Path, model_dir: Path) -> None:
    with running_server(tmp_path / "data", model_dir) as (process, url):
        process.send_signal(signal.SIGTERM)
        printed, logged = process.communicate(timeout=60)
    assert process.returncode == 0
    assert printed == f"vireid serves {url}/; Ctrl-C stops it\n"
    lines = [json.loads(line) for line in logged.splitlines()]
    assert {line["route"] for line in lines if line["event"] == "request"} == {"/readyz"}


def test_serve_on_a_port_in_use_prints_one_line_and_exits_with_2(url: str, tmp_path: Path, model_dir: Path) -> None:
    env = {"VIREID_DATA_DIR": str(tmp_path), "VIREID_MODEL_DIR": str(model_dir)}
    done = vireid("serve", "--port", url.rpartition(":")[2], env=env)
    assert done.exit_code == 2
    assert done.stderr.startswith("error: the server cannot start: [Errno 98] Address already in use")
    assert done.stderr.count("\n") == 1


def test_demo_without_a_model_prints_one_line_and_exits_with_2(tmp_path: Path) -> None:
    with bind("127.0.0.1", 0) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    done = vireid("demo", "--out", str(tmp_path / "x.png"), env={"VIREID_MODEL_DIR": str(tmp_path)}, url=url)
    assert done.exit_code == 2
    assert done.stderr.startswith("error: the server cannot start: model in ")
    assert done.stderr.count("\n") == 1


def test_erase_deletes_an_identity_and_prints_the_receipt(url: str, folder: Path) -> None:
    name = f"g-{uuid.uuid4().hex}"
    assert vireid("index", str(folder), "-g", name, "--identity-pattern", r"/(\d+)/", url=url).exit_code == 0
    done = vireid("gallery", "erase", name, "--identity", "0002", "--yes", url=url)
    receipt = json.loads(done.output)
    assert (done.exit_code, receipt["items"], receipt["left"]["store"]) == (0, 4, 0)
    assert vireid("gallery", "erase", name, "--yes", url=url).exit_code == 2
    again = vireid("gallery", "erase", name, "--identity", "0002", "--yes", url=url)
    assert (again.exit_code, again.stdout) == (1, "")
    assert "no item of" in again.stderr
    asked = vireid("gallery", "erase", name, "--identity", "0001", url=url, stdin="n\n")
    assert asked.exit_code == 1
    assert "Delete 4 items of" in asked.stderr
    assert vireid("gallery", "show", name, url=url).stdout.count('"items": 12') == 1


def test_an_alias_is_set_moved_listed_and_removed(url: str) -> None:
    first, second, alias = (f"{kind}-{uuid.uuid4().hex}" for kind in ("a", "b", "latest"))
    for name in (first, second):
        assert vireid("gallery", "create", name, "--half", "--no-thumbnails", url=url).exit_code == 0
        assert vireid("gallery", "alias", alias, name, url=url).exit_code == 0
        shown = json.loads(vireid("gallery", "show", alias, url=url).output)
        assert (shown["name"], shown["vector_type"], shown["thumbnails"]) == (name, "float16", False)
    assert alias in vireid("gallery", "aliases", url=url).output
    assert vireid("gallery", "unalias", alias, url=url).exit_code == 0
    assert vireid("gallery", "show", alias, url=url).exit_code == 1


def test_search_and_compare_say_what_their_rates_were_measured_on(
    url: str, gallery: str, folder: Path, query: Path
) -> None:
    vireid("index", str(folder), "-g", gallery, url=url)
    found = vireid("search", str(query), "-g", gallery, "--modality", "visible", url=url).stdout
    assert "false hits" in found
    assert "False matches were measured on visible → infrared: none (origin" in found
    assert "not on real infrared crops" in found
    compared = vireid("compare", str(query), str(query), "--modality", "visible", url=url).stdout
    assert compared.startswith("score 1.000")
    assert "Measured on visible → visible: none; 10,000 pairs of different people; real crops." in compared


def test_calibrate_measures_on_the_gallery_and_searches_use_it(
    url: str, gallery: str, folder: Path, query: Path
) -> None:
    vireid("index", str(folder), "-g", gallery, "--identity-pattern", r"/(\d{4})/", url=url)
    done = vireid("calibrate", gallery, url=url)
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-1].split()[:4] == ["infrared", "infrared", "96", "4"]
    found = vireid("search", str(query), "-g", gallery, "--modality", "infrared", url=url).stdout
    assert f"infrared → infrared: gallery {gallery}, by identities, version 1; 96 pairs" in found
    failed = vireid("calibrate", gallery, "--disjoint-cameras", "x,y", url=url)
    assert failed.exit_code == 1
    assert "known to be of different people (disjoint cameras)" in failed.stderr


def test_items_are_listed_shown_changed_and_deleted(url: str, gallery: str, folder: Path, tmp_path: Path) -> None:
    vireid(
        "index", str(folder), "-g", gallery, "--identity-pattern", r"/(\d{4})/", "--camera-pattern", r"_(c\d)", url=url
    )
    listed = json.loads(vireid("items", "list", "-g", gallery, "--identity", "0001", "--json", url=url).stdout)
    assert (len(listed["items"]), listed["next_cursor"]) == (4, None)
    item = listed["items"][0]["id"]
    assert json.loads(vireid("items", "show", item, "-g", gallery, url=url).stdout) == listed["items"][0]
    assert (
        vireid("items", "change", item, "-g", gallery, "--camera", "c9", "--clear", "identity", url=url).exit_code == 0
    )
    assert json.loads(vireid("items", "list", "-g", gallery, "--camera", "c9", "--json", url=url).stdout)["items"] == [
        listed["items"][0] | {"camera": "c9", "identity": None}
    ]
    assert vireid("items", "change", item, "-g", gallery, url=url).exit_code == 2
    assert vireid("items", "image", item, "-g", gallery, "-o", str(tmp_path / "x.jpg"), url=url).exit_code == 0
    assert (tmp_path / "x.jpg").read_bytes().startswith(b"\xff\xd8")
    assert vireid("items", "delete", item, "-g", gallery, "--yes", url=url).exit_code == 0
    assert vireid("items", "delete", item, "-g", gallery, "--yes", url=url).exit_code == 1
    shown = vireid("items", "list", "-g", gallery, "--limit", "2", url=url)
    assert "2 of 15 items" in shown.stderr


def test_search_by_stored_item_and_by_standard_input(url: str, gallery: str, folder: Path, query: Path) -> None:
    vireid("index", str(folder), "-g", gallery, url=url)
    words = ("search", "-g", gallery, "--json", "--modality", "visible")
    by_file = json.loads(vireid(*words, str(query), url=url).stdout)
    piped = CliRunner().invoke(app, [*words, "-"], env={"VIREIDCLI_URL": url}, input=query.read_bytes())
    assert json.loads(piped.stdout)["hits"] == by_file["hits"]
    item = by_file["hits"][0]["item"]["id"]
    by_item = json.loads(vireid("search", "-g", gallery, "--json", "--item", item, url=url).stdout)
    assert (by_item["searched"], item in [hit["item"]["id"] for hit in by_item["hits"]]) == (15, False)
    assert vireid("search", "-g", gallery, url=url).exit_code == 2
    assert vireid("search", str(query), "-g", gallery, "--item", item, url=url).exit_code == 2


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--from", "yesterday", "must be a time"),
        ("--warning", "ugly", "too_small"),
        ("--attribute", "site", "expected NAME=VALUE"),
        ("--id", "a/b", "pattern"),
    ],
)
def test_a_wrong_filter_is_named_by_its_option(
    url: str, gallery: str, query: Path, option: str, value: str, message: str
) -> None:
    done = vireid("search", str(query), "-g", gallery, option, value, url=url)
    assert done.exit_code == 2
    assert option in done.stderr
    assert message in done.stderr


def test_filters_of_the_command_reach_the_server(url: str, client: Client, gallery: str, query: Path) -> None:
    body = {"items": json.dumps([{"id": "a", "modality": "visible", "attributes": {"site": "north", "floor": 2}}])}
    httpx2.post(
        f"{url}/v1/galleries/{gallery}/items", files={"images": query.read_bytes()}, data=body
    ).raise_for_status()
    words = ("items", "list", "-g", gallery, "--json")
    for options, count in (
        (("--attribute", "site=north", "--attribute", "floor=2"), 1),
        (("--attribute", "floor=3"), 0),
        (("--exclude-attribute", "site=north"), 0),
        (("--id", "a", "--exclude-id", "b"), 1),
    ):
        assert len(json.loads(vireid(*words, *options, url=url).stdout)["items"]) == count


def test_json_is_the_answer_of_the_server(url: str, gallery: str) -> None:
    for words, path in (
        (("models", "list"), "/v1/models"),
        (("models", "show", "stub"), "/v1/models/stub"),
        (("gallery", "show", gallery), f"/v1/galleries/{gallery}"),
        (("gallery", "list"), "/v1/galleries?limit=1000"),
        (("status",), "/readyz"),
        (("items", "receipts"), "/v1/erasures?limit=1000"),
        (("keys", "list"), "/v1/keys?limit=1000"),
        (("jobs",), "/v1/jobs"),
    ):
        option = () if "show" in words else ("--json",)
        done = vireid(*words, *option, url=url)
        assert json.loads(done.stdout) == httpx2.get(url + path).json(), words


def test_status_shows_models_and_metrics(url: str) -> None:
    assert "model stub: " in vireid("status", url=url).stdout
    assert "vireid_ready 1.0" in vireid("status", "--metrics", url=url).stdout


def test_gallery_is_changed(url: str, gallery: str) -> None:
    done = vireid("gallery", "change", gallery, "--retention-days", "7", "--json", url=url)
    assert json.loads(done.stdout)["retention_days"] == 7
    assert vireid("gallery", "change", gallery, "--retention-days", "0", url=url).exit_code == 0
    assert json.loads(vireid("gallery", "show", gallery, url=url).stdout)["retention_days"] is None
    assert vireid("gallery", "change", gallery, url=url).exit_code == 2


def test_search_names_its_case_and_its_reason_in_the_audit_log(
    url: str, gallery: str, folder: Path, query: Path
) -> None:
    vireid("index", str(folder), "-g", gallery, "--modality", "infrared", url=url)
    case = ("--case-reference", "2026/17 é", "--reason", "missing person")
    assert vireid("search", str(query), "-g", gallery, *case, url=url).exit_code == 0
    with Client(url) as client:
        entry = next(entry for entry in client.audit() if entry.action == "search")
    assert (entry.case_reference, entry.reason) == ("2026/17 é", "missing person")
