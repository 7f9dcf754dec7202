"""Upload of a folder: which files, under which ids, after interruptions and with invalid files."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import httpx2
import pytest

from models.card import Modality
from tests.drawing import write_people
from tests.server.image_files import TEXT
from tests.vireid.conftest import MAX_IMAGES
from tests.vireid.intercepting_transport import InterceptingTransport
from vireid.client import Client, ItemFields, Unreachable
from vireid.client.conflicts import sift
from vireid.client.crop_folder import count_reasons, find_crops
from vireid.client.folder_upload import Labels, Outcome, upload
from vireid.schemas.imports import ConflictChoice

PEOPLE = 12

Files = list[tuple[Path, ItemFields]]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_people(tmp_path_factory.mktemp("drawn"), range(PEOPLE), modalities=[Modality.INFRARED])


@pytest.fixture
def folder(drawn: Path, tmp_path: Path) -> Path:
    """48 infrared crops."""
    return Path(shutil.copytree(drawn, tmp_path / "crops"))


def files_of(folder: Path) -> Files:
    labels = Labels("infrared", re.compile(r"_(c\d)_"), re.compile(r"\d{4}"))
    return [(path, labels.of(path.relative_to(folder).as_posix())) for path in find_crops(folder).crops]


def ids(client: Client, gallery: str) -> set[str]:
    return {item.id for item in client.items(gallery)}


def statuses(done: Iterator[list[Outcome]]) -> list[str]:
    return [outcome.status for outcomes in done for outcome in outcomes]


def test_find_crops_returns_only_images_at_any_depth_in_order(tmp_path: Path) -> None:
    images = ["a.PNG", "b/c.jpeg", "b/d/e.webp", "b/f.bmp", "z.jpg"]
    for name in [*images, "notes.txt", "b/._c.jpeg", ".cache/x.png", "b/model.onnx"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    assert [path.relative_to(tmp_path).as_posix() for path in find_crops(tmp_path).crops] == images


def test_what_is_not_sent_is_named_with_its_reason(tmp_path: Path) -> None:
    root, other = tmp_path / "root", tmp_path / "other"
    for name in ("root/a/1.png", "root/a/@eaDir/1.png/SYNOPHOTO_THUMB_XL.jpg", "root/Thumbs.db", "root/notes.txt",
                 "root/#recycle/2.png", "root/manifest.csv", "other/3.png"):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (root / "linked").symlink_to(other)
    (root / "loop").symlink_to(root)
    (root / "itself").symlink_to(root / "itself")
    (root / "file.png").symlink_to(other / "3.png")
    found = find_crops(root)
    assert [found.name(path) for path in found.crops] == ["a/1.png", "file.png"]
    assert [path.name for path in found.manifests] == ["manifest.csv"]
    assert dict(found.ignored) == {
        "#recycle": "in a system folder",
        "Thumbs.db": "system file",
        "a/@eaDir": "in a system folder",
        "itself": "broken link",
        "linked": "link to a folder, which is not followed",
        "loop": "link to a folder, which is not followed",
        "notes.txt": "not an image by its suffix .txt",
    }
    followed = find_crops(root, follow_links=True)
    assert [followed.name(path) for path in followed.crops] == ["a/1.png", "file.png", "linked/3.png"]
    assert dict(followed.ignored)["loop"] == "link to a folder that contains it"


def test_reasons_are_counted_with_examples() -> None:
    (first, second) = count_reasons([("a", "broken link"), *((f"{n}", "system file") for n in range(5))])
    assert (first.reason, first.count, first.examples) == ("system file", 5, ("0", "1", "2"))
    assert (second.reason, second.count) == ("broken link", 1)


def conflicting(tmp_path: Path) -> Files:
    """Two crops, and a third that has the id of the first: one name composed and decomposed."""
    contents = {"ä.png": b"1", "b.png": b"2", "a\N{COMBINING DIAERESIS}.png": b"3"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    return [(tmp_path / name, Labels().of(name)) for name in contents]


def test_crops_with_the_id_of_another_are_kept_apart_or_stop_or_replace(tmp_path: Path) -> None:
    files = conflicting(tmp_path)
    (composed, plain, decomposed), ids = [path for path, _ in files], [fields.id for _, fields in files]
    assert ids[0] == ids[2]
    stopped = sift(files, {}, ConflictChoice.FAIL)
    assert stopped.conflicts == [(decomposed, ids[0])]
    kept = sift(files, {}, ConflictChoice.KEEP)
    assert [path for path, _ in kept.new] == [composed, plain, decomposed]
    assert len({fields.id for _, fields in kept.new}) == 3
    stored = {fields.id or "": sha256(path.read_bytes()).hexdigest() for path, fields in kept.new}
    assert sift(files, stored, ConflictChoice.KEEP).there == [composed, plain, decomposed]
    assert [path for path, _ in sift(files, stored, ConflictChoice.REPLACE).new] == [decomposed]
    unknown = dict.fromkeys(stored)  # items of the first versions have no digest
    assert composed in sift(files, unknown, ConflictChoice.FAIL).there


@pytest.mark.parametrize(
    ("pattern", "camera"), [(r"_c(\d)", "3"), (r"c\d", "c3"), (r"^(cam\d)/", None), (r"_c(\d)|(x)", "3"), (None, None)]
)
def test_a_label_is_the_first_group_of_the_pattern_or_the_whole_match(pattern: str | None, camera: str | None) -> None:
    labels = Labels("infrared", None if pattern is None else re.compile(pattern))
    assert labels.of("0001/0001_c3_7.png").camera == camera


def test_upload_adds_every_crop_with_its_labels(client: Client, gallery: str, folder: Path) -> None:
    assert statuses(upload(client, gallery, files_of(folder), parallel=3)) == ["added"] * 48
    item = client.item(gallery, "infrared:0003:0003_c4_1.png")
    assert (item.camera, item.identity, item.modality) == ("c4", "0003", Modality.INFRARED)


def test_a_second_upload_sends_only_missing_crops(client: Client, gallery: str, folder: Path) -> None:
    def broken(request: httpx2.Request, posts: int) -> httpx2.Response | None:
        if posts > 3:
            raise httpx2.ConnectError("Connection refused", request=request)
        return None

    files = files_of(folder)
    with Client(client.base_url, transport=InterceptingTransport(broken)) as flaky, pytest.raises(Unreachable):
        statuses(upload(flaky, gallery, files, parallel=2))
    stored = ids(client, gallery)
    assert len(stored) == 3 * MAX_IMAGES
    missing = [(path, fields) for path, fields in files if fields.id not in stored]
    assert statuses(upload(client, gallery, missing, parallel=2)) == ["added"] * (len(files) - len(stored))
    assert ids(client, gallery) == {fields.id for _, fields in files}


def test_closing_the_iterator_starts_no_more_requests(client: Client, gallery: str, folder: Path) -> None:
    counting = InterceptingTransport(lambda _request, _posts: None)
    with Client(client.base_url, transport=counting) as counted:
        done = upload(counted, gallery, files_of(folder), parallel=1)
        next(done)
        done.close()  # type: ignore[attr-defined]
    assert counting.posts < 48 / MAX_IMAGES
    assert len(ids(client, gallery)) == counting.posts * MAX_IMAGES


def test_upload_reports_invalid_files_and_sends_the_others(client: Client, gallery: str, folder: Path) -> None:
    (folder / "broken.png").write_bytes(TEXT)
    (folder / "deleted.png").write_bytes(b"")
    (folder / "empty.png").write_bytes(b"")
    files = files_of(folder)
    (folder / "deleted.png").unlink()
    outcomes = [outcome for done in upload(client, gallery, files, parallel=2) for outcome in done]
    failed = {outcome.path.name: outcome.reason for outcome in outcomes if outcome.status == "failed"}
    assert failed.keys() == {"broken.png", "deleted.png", "empty.png"}
    assert failed["deleted.png"] == "No such file or directory"
    assert failed["broken.png"] == "Not a JPEG, PNG, WebP, BMP, TIFF, GIF or AVIF image."
    assert len(ids(client, gallery)) == 48


def test_upload_sends_smaller_requests_to_a_proxy_with_a_lower_limit(
    client: Client, gallery: str, folder: Path
) -> None:
    files = files_of(folder)
    (folder / "large.bmp").write_bytes(bytes(200_000))
    largest = max(path.stat().st_size for path, _ in files)

    def narrow(request: httpx2.Request, _: int) -> httpx2.Response | None:
        return httpx2.Response(413, text="nginx") if len(request.content) > 3 * largest else None

    with Client(client.base_url, transport=InterceptingTransport(narrow)) as narrowed:
        outcomes = [o for done in upload(narrowed, gallery, files_of(folder), parallel=2) for o in done]
    assert [outcome.path.name for outcome in outcomes if outcome.status == "failed"] == ["large.bmp"]
    assert len(ids(client, gallery)) == 48
