"""Imports and jobs, by client and command."""

from __future__ import annotations

import io
import re
import tarfile
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import httpx2
import pytest

from models.card import Modality
from server.jobs.runner import Context
from server.runner import Host, in_background
from server.settings import Settings
from tests.drawing import write_people
from tests.server.image_files import TEXT, crop
from tests.server.jobs.uploads import ndjson, parquet, tar, vector_rows, zipped
from tests.vireid.intercepting_transport import InterceptingTransport
from tests.vireid.test_commands import vireid
from vireid.client import ApiError, Client, JobState, JobStatus, Unreachable, import_kind
from vireid.client.tar_stream import tar_size, tar_stream

PATIENCE_S = 20.0  # below the grace that uvicorn gives to open connections


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """16 infrared crops."""
    return write_people(tmp_path / "crops", range(4), modalities=[Modality.INFRARED])


def last(states: Iterator[JobStatus]) -> JobStatus:
    *_, end = states
    return end


def counts(job: JobStatus) -> tuple[str, int | None, int, int, int]:
    return job.state, job.total, job.done, job.failed, job.skipped


def test_the_tar_stream_holds_names_and_contents_but_no_owner_or_time(folder: Path) -> None:
    link = folder / "linked.png"
    files = sorted(folder.rglob("*.png"))
    link.symlink_to(files[0])
    with tarfile.open(fileobj=io.BytesIO(b"".join(tar_stream(folder, [*files, link])))) as archive:
        members = archive.getmembers()
        assert [member.name for member in members] == [f.relative_to(folder).as_posix() for f in [*files, link]]
        assert all(member.isreg() for member in members)
        for member, file in zip(members, [*files, files[0]], strict=True):
            content = archive.extractfile(member)
            assert content is not None
            assert content.read() == file.read_bytes()
            assert (member.uid, member.gid, member.uname, member.gname, member.mtime) == (0, 0, "", "", 0)


@pytest.mark.parametrize("count", [0, 1, 25])
def test_tar_size_equals_the_size_of_the_stream(tmp_path: Path, count: int) -> None:
    names = [f"{'ä' * 60 if number % 3 else 'a'}/{'n' * number * 9}{number}.jpg" for number in range(count)]
    for number, name in enumerate(names):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(bytes(511 * number))
    files = [tmp_path / name for name in names]
    assert tar_size(tmp_path, files) == len(b"".join(tar_stream(tmp_path, files)))


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.TAR", "tar"), ("a.tgz", "tar.gz"), ("a.tar.gz", "tar.gz"), ("a.zip", "zip"), ("a.jsonl", "ndjson"),
     ("a.ndjson", "ndjson"), ("a.parquet", "parquet")],
)  # fmt: skip
def test_import_kind_follows_from_the_file_name(name: str, kind: str) -> None:
    assert import_kind(Path("somewhere") / name) == kind


def test_files_of_every_kind_are_imported(client: Client, gallery: str, tmp_path: Path) -> None:
    rows = vector_rows(3)
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    uploads = {"a.tar": tar({"1.png": crop(1)}), "a.zip": zipped({"2.png": crop(2)}), "a.ndjson": ndjson(rows)}
    uploads["a.parquet"] = parquet(columns)
    for name, body in uploads.items():
        (tmp_path / name).write_bytes(body)
        job = client.import_file(gallery, tmp_path / name, modality="visible")
        assert last(client.watch(job.id)).state is JobState.SUCCEEDED
    assert {item.id for item in client.items(gallery)} == {"1.png", "2.png", "v00000", "v00001", "v00002"}
    assert last(client.watch(job.id)).skipped == 3
    assert client.job(job.id) in client.jobs(JobState.SUCCEEDED)
    with pytest.raises(ValueError, match=r"must end in \.tar"):
        client.import_file(gallery, tmp_path / "a.rar")
    with pytest.raises(ValueError, match="kind"):
        client.import_file(gallery, [b""])
    with pytest.raises(ApiError) as refused:
        client.import_file(gallery, tmp_path / "a.ndjson", fingerprint="0" * 64)
    assert refused.value.status == 409
    with pytest.raises(ApiError) as missing:
        client.import_file("nowhere", (bytes(100_000) for _ in range(100)), "tar")
    assert missing.value.status == 404


def test_an_upload_is_sent_while_it_is_produced(client: Client, gallery: str) -> None:
    body = tar({f"{n}.png": crop(n) for n in range(3)})
    produced: list[int] = []

    def blocks() -> Iterator[bytes]:
        for start in range(0, len(body), 1000):
            produced.append(start)
            yield body[start : start + 1000]

    def check_streaming(request: httpx2.Request, posts: int) -> httpx2.Response | None:
        if request.method == "POST":
            assert len(produced) < 5
            assert "content-length" not in request.headers
        return None

    with Client(client.base_url, transport=InterceptingTransport(check_streaming)) as streaming:
        job = streaming.import_file(gallery, blocks(), "tar")
    assert counts(last(client.watch(job.id))) == ("succeeded", 3, 3, 0, 0)


def test_failures_are_listed_and_jobs_cancelled(client: Client, gallery: str) -> None:
    job = client.import_file(gallery, [tar({"a.png": TEXT, "b.png": crop(1)})], "tar")
    assert counts(last(client.watch(job.id))) == ("succeeded", 2, 1, 1, 0)
    (failure,) = client.job_failures(job.id)
    assert (failure.name, failure.error.detail) == ("a.png", "Not a JPEG, PNG, WebP, BMP, TIFF, GIF or AVIF image.")
    assert client.cancel_job(job.id).state is JobState.SUCCEEDED
    with pytest.raises(ApiError, match="404"):
        next(client.watch("job_none"))


def test_watch_reconnects_to_a_restarted_server(client: Client, gallery: str) -> None:
    job = client.import_file(gallery, [tar({"b.png": crop(1)})], "tar")
    slept: list[float] = []

    def flaky(request: httpx2.Request, _posts: int) -> httpx2.Response | None:
        if len(slept) < 2:
            raise httpx2.ConnectError("Connection refused", request=request)
        return httpx2.Response(200, text="") if len(slept) == 2 else None  # the stream ends before the job does

    with Client(client.base_url, transport=InterceptingTransport(flaky), sleep=slept.append) as patient:
        assert last(patient.watch(job.id)).state is JobState.SUCCEEDED
    assert slept == [1.0, 1.0, 1.0]

    def unreachable(request: httpx2.Request, _posts: int) -> httpx2.Response | None:
        raise httpx2.ConnectError("Connection refused", request=request)

    impatient = Client(client.base_url, transport=InterceptingTransport(unreachable), retries=2, sleep=slept.append)
    with impatient, pytest.raises(Unreachable):
        next(impatient.watch(job.id))
    assert len(slept) == 5


def test_import_sends_a_folder_and_a_second_run_skips_its_items(url: str, folder: Path) -> None:
    name = f"g-{uuid.uuid4().hex}"
    (folder / "manifest.csv").write_text("path,identity\ninfrared/0003/0003_c4_1.png,the third\n")
    words = ("import", str(folder), "-g", name, "--modality", "infrared", "--pattern", r"(?P<identity>\d{4})_")
    first = vireid(*words, url=url)
    assert (first.exit_code, first.stdout.strip()) == (0, f"{name}: succeeded, 16 done, 0 there already, 0 failed")
    with Client(url) as client:
        assert client.item(name, "infrared:0003:0003_c4_1.png").identity == "the third"
        assert client.item(name, "infrared:0002:0002_c4_1.png").identity == "0002"
    indexed = vireid("index", str(folder), "-g", name, url=url)
    assert "0 added, 0 replaced, 16 there already" in indexed.stdout
    again = vireid(*words, url=url)
    assert again.stdout.strip() == f"{name}: succeeded, 0 done, 16 there already, 0 failed"


def test_import_prints_failures_and_jobs_follows_and_lists(url: str, gallery: str, tmp_path: Path) -> None:
    archive = tmp_path / "x.zip"
    archive.write_bytes(zipped({f"bad{n}[1].png": TEXT for n in range(60)} | {"good.png": crop(1)}))
    done = vireid("import", str(archive), "-g", gallery, url=url)
    assert done.exit_code == 1
    assert f"{gallery}: succeeded, 1 done, 0 there already, 60 failed" in done.stdout
    assert "bad0[1].png" in done.stdout
    assert "and 10 more" in done.stdout
    archive.write_bytes(TEXT)
    broken = vireid("import", str(archive), "-g", gallery, url=url)
    assert (broken.exit_code, "It is not a zip archive" in broken.stderr) == (1, True)
    started = vireid("import", str(archive), "-g", gallery, "--no-wait", url=url)
    found = re.search(r"job_\w+", started.stdout)
    assert found is not None
    assert vireid("jobs", found[0], url=url).exit_code == 1
    assert vireid("jobs", found[0], "--cancel", url=url).exit_code == 1
    listed = vireid("jobs", "--state", "failed", url=url)
    assert found[0] in listed.stdout
    assert "succeeded" not in listed.stdout


@pytest.mark.parametrize("command", ["import", "index"])
def test_a_second_folder_with_the_same_names_stops_or_is_kept_or_replaces(
    url: str, tmp_path: Path, command: str
) -> None:
    name = f"g-{uuid.uuid4().hex}"
    for camera in range(2):
        (tmp_path / f"cam{camera}").mkdir()
        for number in range(2):
            (tmp_path / f"cam{camera}" / f"{number}.png").write_bytes(crop(10 * camera + number))

    def run(camera: int, *words: str) -> tuple[int, int]:
        done = vireid(command, str(tmp_path / f"cam{camera}"), "-g", name, *words, url=url)
        with Client(url) as client:
            return done.exit_code, len(list(client.items(name)))

    assert run(0) == (0, 2)
    assert run(1) == (1, 2)
    assert run(1, "--on-conflict", "keep") == (0, 4)
    assert run(1, "--on-conflict", "keep") == (0, 4)
    assert run(1, "--on-conflict", "replace") == (0, 4)
    assert run(1) == (0, 4)
    with Client(url) as client:
        assert len({item.content_sha256 for item in client.items(name)}) == 2


@pytest.mark.parametrize("command", ["import", "index"])
def test_ignored_files_are_printed_by_reason_and_a_linked_folder_is_no_success(
    url: str, gallery: str, folder: Path, tmp_path: Path, command: str
) -> None:
    for name in ("@eaDir", "sub"):
        (folder / name).mkdir()
    (folder / "Thumbs.db").write_bytes(b"x")
    plain = vireid(command, str(folder), "-g", gallery, url=url)
    assert plain.exit_code == 0
    assert re.search(r"1 +system file +Thumbs.db", plain.stdout)
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "x.png").write_bytes(crop(77))
    (folder / "linked").symlink_to(tmp_path / "more")
    assert vireid(command, str(folder), "-g", gallery, url=url).exit_code == 1
    assert vireid(command, str(folder), "-g", gallery, "--follow-links", url=url).exit_code == 0
    with Client(url) as client:
        assert client.item(gallery, "linked:x.png")


def test_the_time_zone_of_an_import_is_that_of_its_local_times(url: str, gallery: str, tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(crop(1))
    (tmp_path / "manifest.csv").write_text("path,captured_at\n1.png,2026-07-01 12:00:00\n")
    assert vireid("import", str(tmp_path), "-g", gallery, url=url).exit_code == 1
    done = vireid("import", str(tmp_path), "-g", gallery, "--timezone", "Europe/Berlin", url=url)
    assert done.exit_code == 0
    with Client(url) as client:
        assert str(client.item(gallery, "1.png").captured_at) == "2026-07-01 10:00:00+00:00"


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("import", "{tmp}", "-g", "g"), 1, "no image below"), (("import", "{tmp}/none.tar", "-g", "g"), 2, "none.tar"),
        (("import", "{tmp}/x.rar", "-g", "g"), 2, "must end in .tar"), (("jobs", "--cancel"), 2, "needs the id"),
        (("import", "/", "-g", "{gallery}", "--on-server"), 1, "no folder that may be imported"),
    ],
)  # fmt: skip
def test_invalid_import_arguments_are_reported_in_one_line(
    url: str, gallery: str, tmp_path: Path, words: tuple[str, ...], code: int, text: str
) -> None:
    done = vireid(*(word.format(tmp=tmp_path, gallery=gallery) for word in words), url=url)
    assert done.exit_code == code
    assert text in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_import_on_server_reads_a_folder_of_the_server(model_dir: Path, folder: Path, tmp_path: Path) -> None:
    settings = Settings(
        data_dir=tmp_path / "data", model_dir=model_dir, device="cpu", threads=1, host="127.0.0.1", port=0, auth="off",
        import_roots=(folder.parent,),
    )  # fmt: skip
    with in_background(settings) as address:
        done = vireid("import", str(folder), "-g", "g", "--on-server", url=address)
        assert done.stdout.strip() == "g: succeeded, 16 done, 0 there already, 0 failed"


def test_a_stopping_server_ends_the_event_streams_of_jobs(model_dir: Path, tmp_path: Path) -> None:
    """Otherwise it would wait for their readers as long as jobs run."""
    settings = Settings(
        data_dir=tmp_path / "data", model_dir=model_dir, device="cpu", threads=1, host="127.0.0.1", port=0, auth="off"
    )  # fmt: skip
    host, started, watched = Host(settings), Event(), Event()

    class Endless:
        def run(self, context: Context) -> None:
            assert watched.wait(PATIENCE_S)
            host.stop()
            while True:
                context.check()

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(host.run, started.set)
        assert started.wait(PATIENCE_S)
        host._app.state.service.jobs._handlers["import"] = Endless()
        with Client(host.url, retries=0) as client:
            client.create_gallery("g")
            states = client.watch(client.import_file("g", [b""], "ndjson").id)
            next(states)
            watched.set()
            with pytest.raises(Unreachable):
                list(states)
        running.result(PATIENCE_S)
