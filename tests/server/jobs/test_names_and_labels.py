"""Names, manifests and times as people's programs write them are read alike, and nothing is ignored in silence."""

from __future__ import annotations

import io
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from models.crop_files import id_of
from server.domain.errors import ArchiveRejected
from server.domain.validation import InvalidRequest
from server.jobs.imports.archive_entries import Source
from server.jobs.imports.directory import DirectorySource
from server.jobs.imports.labels import normalized, zone_of
from server.jobs.imports.reading import FileRead, Survey, read_images
from server.jobs.imports.tar import TarSource
from server.jobs.imports.zip import ZipSource
from server.jobs.report import ReasonCounts
from server.jobs.upload import Upload
from tests.server.jobs.uploads import header, tar, targz, zipped


def read(source: Source, folder: Path) -> tuple[Survey, dict[str, FileRead]]:
    survey, *files = read_images(source, folder / "manifest.db", None, 10_000)
    assert isinstance(survey, Survey)
    return survey, {file.path: file for file in files if isinstance(file, FileRead)}


def source_of(folder: Path, body: bytes) -> Source:
    path = folder / "body"
    path.write_bytes(body)
    return ZipSource(Upload(path)) if body[:2] == b"PK" else TarSource(Upload(path))


SYSTEM_FILES = {
    "a/@eaDir/1.png/SYNOPHOTO_THUMB_XL.jpg": "in a system folder",
    "#recycle/2.png": "in a system folder",
    "$RECYCLE.BIN/3.png": "in a system folder",
    "__MACOSX/a/._1.png": "in a system folder",
    "a/Thumbs.db": "system file",
    "Desktop.ini": "system file",
    ".DS_Store": "hidden file or folder",
    "readme.txt": "not an image by its suffix .txt",
}


@pytest.mark.parametrize("pack", [tar, targz, zipped])
def test_system_files_of_archives_are_ignored_and_counted(tmp_path: Path, pack: Any) -> None:
    survey, files = read(source_of(tmp_path, pack({"a/1.png": b"x", **dict.fromkeys(SYSTEM_FILES, b"y")})), tmp_path)
    assert (survey.files, list(files)) == (1, ["a/1.png"])
    reasons = {one["reason"]: one["count"] for one in survey.ignored}
    expected = list(SYSTEM_FILES.values())
    assert reasons == {reason: expected.count(reason) for reason in expected}


def test_system_folders_links_and_unreadable_files_of_a_folder_are_counted(tmp_path: Path) -> None:
    root, other = tmp_path / "root", tmp_path / "other"
    for folder in (root / "a" / "@eaDir", other):
        folder.mkdir(parents=True)
        (folder / "x.png").write_bytes(b"x")
    (root / "a" / "1.png").write_bytes(b"1")
    (root / "linked").symlink_to(other)
    (root / "loop").symlink_to(root)
    survey, files = read(DirectorySource(root), tmp_path)
    assert (survey.files, list(files)) == (1, ["a/1.png"])
    assert {one["reason"]: one["count"] for one in survey.ignored} == {
        "in a system folder": 1,
        "link to a folder, which is not followed": 2,
    }
    survey, files = read(DirectorySource(root, [tmp_path]), tmp_path)
    assert sorted(files) == ["a/1.png", "linked/x.png"]
    assert {one["reason"] for one in survey.ignored} == {"in a system folder", "link to a folder that contains it"}


@pytest.mark.parametrize("pack", [tar, targz])
def test_hard_links_have_the_content_of_the_earlier_member(tmp_path: Path, pack: Any) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz" if pack is targz else "w") as archive:
        for name in ("cam/1.png", "cam/2.png"):
            archive.addfile(header(name, size=5), io.BytesIO(name[-5:].encode()))
        archive.addfile(header("query/1.png", tarfile.LNKTYPE, link="cam/1.png"))
        archive.addfile(header("query/away.png", tarfile.LNKTYPE, link="/etc/passwd"))
    survey, files = read(source_of(tmp_path, out.getvalue()), tmp_path)
    assert survey.files == 4
    assert {path: file.data for path, file in files.items()} == {
        "cam/1.png": b"1.png", "cam/2.png": b"2.png", "query/1.png": b"1.png",
    }  # fmt: skip


def zip_with(raw: bytes, extra: bytes = b"") -> bytes:
    """A zip of one file whose name is ``raw``, without the flag for UTF-8."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        member = zipfile.ZipInfo("x" * len(raw))
        member.extra = extra
        archive.writestr(member, b"1")
    return out.getvalue().replace(b"x" * len(raw), raw)


def test_zip_names_are_utf_8_where_they_can_be_then_of_the_extra_field_then_cp437(tmp_path: Path) -> None:
    name = "夜/1.png"
    assert list(read(source_of(tmp_path, zip_with(name.encode())), tmp_path)[1]) == [name]
    raw = b"\x82.png"
    assert list(read(source_of(tmp_path, zip_with(raw)), tmp_path)[1]) == ["é.png"]
    field = struct.pack("<BL", 1, zlib.crc32(raw)) + name.encode()
    extra = struct.pack("<HH", 0x7075, len(field)) + field
    assert list(read(source_of(tmp_path, zip_with(raw, extra)), tmp_path)[1]) == [name]


def test_decomposed_names_and_backslashes_meet_the_manifest(tmp_path: Path) -> None:
    decomposed = unicodedata.normalize("NFD", "é/1.png")
    manifest = 'path,identity\n"é\\1.png",p1\n"B.PNG",p2\n'
    survey, files = read(
        source_of(tmp_path, zipped({decomposed: b"1", "b.png": b"2", "MANIFEST.CSV": manifest.encode()})), tmp_path
    )
    assert survey.unused_rows == []
    assert [file.row is not None for file in files.values()] == [True, True]
    assert id_of(next(iter(files))) == id_of("é/1.png")


MANIFESTS = {
    "semicolons and a byte order mark": "\ufeffpath;identity\n1.png;7\n",
    "tabs": "path\tidentity\n1.png\t7\n",
    "spelling": " Path , IDENTITY\n1.png,7\n",
    "sep line": "sep=;\r\npath;identity\r\n1.png;7\r\n",
    "index of pandas": ",path,identity\n0,1.png,7\n",
    "empty rows and last column": "path,identity,\n,,\n1.png,7,\n,,\n",
    "bars": "path|identity\n1.png|7\n",
    "quoted header": '"path","identity"\n"1.png","7"\n',
    "nameless and unnamed columns": "Unnamed: 0;path;identity;\n0;1.png;7;\n",
    "carriage returns": "path,identity\r1.png,7\r",
}


@pytest.mark.parametrize("text", MANIFESTS.values(), ids=MANIFESTS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_manifests_of_spreadsheets_are_read(tmp_path: Path, text: str, encoding: str) -> None:
    text = text.removeprefix("\ufeff") if encoding == "utf-16" else text
    body = zipped({"1.png": b"1", "manifest.csv": text.encode(encoding)})
    survey, files = read(source_of(tmp_path, body), tmp_path)
    row = files["1.png"].row
    assert row is not None
    assert row.fields == '{"path": "1.png", "identity": "7"}'
    assert (survey.unused_rows, survey.ignored) == ([], [])


def test_a_manifest_with_two_equal_columns_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArchiveRejected, match="two columns path"):
        read(source_of(tmp_path, zipped({"1.png": b"", "manifest.csv": b"path,Path\n1.png,1\n"})), tmp_path)


def test_unknown_columns_are_named_and_misspelt_ones_refused(tmp_path: Path) -> None:
    survey, _ = read(source_of(tmp_path, zipped({"1.png": b"", "manifest.csv": b"path,colour\n1.png,red\n"})), tmp_path)
    assert survey.ignored == [{"reason": "unknown column of manifest.csv", "count": 1, "examples": ["colour"]}]
    with pytest.raises(ArchiveRejected, match="camera may be meant"):
        read(source_of(tmp_path, zipped({"1.png": b"", "manifest.csv": b"path,camra\n1.png,1\n"})), tmp_path)


@pytest.mark.parametrize("value", ["1763676600.5", 1763676600.5, "1763676600500", 1763676600500, 1763676600500000000])
def test_times_since_1970_are_read_in_any_unit(value: object) -> None:
    moment = datetime(2025, 11, 20, 22, 10, 0, 500_000, UTC)
    assert normalized({"captured_at": value}, None)["captured_at"] == moment


def test_local_times_get_the_zone_of_the_import_and_numbers_become_text() -> None:
    fields = {"captured_at": "2026/07/01 10:00:00", "identity": 7, "camera": 3.0}
    found = normalized(fields, zone_of("Europe/Berlin"))
    assert found["captured_at"].astimezone(UTC) == datetime(2026, 7, 1, 8, tzinfo=UTC)
    assert (found["identity"], found["camera"]) == ("7", "3")
    with pytest.raises(InvalidRequest):
        zone_of("Nowhere/Land")


@pytest.mark.parametrize("local", ["2026-03-29 02:00:00", "2026-03-29 02:30:00", "2026-03-29T02:59:59"])
def test_a_time_over_which_clocks_are_put_forward_is_refused(local: str) -> None:
    with pytest.raises(InvalidRequest, match="does not exist in Europe/Berlin"):
        normalized({"captured_at": local}, zone_of("Europe/Berlin"))
    assert normalized({"captured_at": local}, zone_of("+01:00"))["captured_at"].utcoffset() == timedelta(hours=1)


@pytest.mark.parametrize(
    ("local", "hour"), [("2026-10-25 02:30:00", 0), ("2026-03-29 03:00:00", 1), ("2026-03-29 01:59:59", 0)]
)
def test_a_time_near_a_change_of_clocks_is_read_and_the_first_of_two_taken(local: str, hour: int) -> None:
    moment = normalized({"captured_at": local}, zone_of("Europe/Berlin"))["captured_at"]
    assert moment.astimezone(UTC).hour == hour


def test_equal_failures_are_counted_as_one_reason() -> None:
    counts = ReasonCounts()
    for number in range(1000):
        counts.add(f"There is no file {number}.png.", f"row {number}")
    counts.add("The file is empty.", "x")
    assert [(one.count, len(one.examples)) for one in counts.most_common()] == [(1000, 3), (1, 1)]
    assert ReasonCounts(counts.to_json()).total == 1001
