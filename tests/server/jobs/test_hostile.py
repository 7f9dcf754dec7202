"""Malicious and damaged archives are refused with a reason and never read partially without notice."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.crop_files import LONGEST_PATH
from server.domain.errors import ArchiveRejected, EntryRejected, ImageTooLarge
from server.jobs.imports import archive_entries as entries
from server.jobs.imports import tar, zip
from server.jobs.imports.archive_entries import Source
from server.jobs.imports.tar import TarSource
from server.jobs.imports.zip import ZipSource
from server.jobs.report import ReasonCounts
from server.jobs.upload import Upload
from tests.server.jobs.uploads import header, targz, zipped
from tests.server.jobs.uploads import tar as tarred

LIMIT = 10_000
GOOD = {f"good/{number}.png": bytes([number]) * (700 + number) for number in range(5)}


@pytest.fixture
def source(tmp_path: Path) -> Any:
    """Create the source that matches the first bytes."""

    def make(data: bytes, kind: type[TarSource | ZipSource] | None = None) -> Source:
        path = tmp_path / "body"
        path.write_bytes(data)
        return (kind or (ZipSource if data[:2] == b"PK" else TarSource))(Upload(path))

    return make


def contents(source: Source) -> dict[str, bytes | str]:
    """Return the content, or the reason why it cannot be read, by path."""

    def read(source: Source) -> Iterator[tuple[str, bytes | str]]:
        for entry in source.entries():
            try:
                yield entry.path, entry.read(LIMIT)
            except EntryRejected as error:
                yield entry.path, error.reason

    return dict(read(source))


@pytest.mark.parametrize("pack", [tarred, targz, zipped])
def test_valid_archive_is_read_and_resumed_from_any_position(source: Any, pack: Any) -> None:
    archive = source(pack({**GOOD, ".hidden/x": b"", "a/.b": b"", "__MACOSX/c": b""}))
    assert contents(archive) == GOOD
    found = [(entry.path, entry.position) for entry in archive.entries()]
    assert [path for path, _ in found] == list(GOOD)
    assert [entry.path for entry in archive.entries(archive.start)] == list(GOOD)
    for place, (_, position) in enumerate(found):
        assert [entry.path for entry in archive.entries(position)] == list(GOOD)[place + 1 :]


BAD_NAMES = {
    "/etc/passwd": "absolute", "C:/x.png": "absolute", "../up.png": "out of the archive",
    "a/../../up.png": "out of the archive", "a/..": "out of the archive", "line\nbreak.png": "control characters",
    "esc\x1b[31m.png": "control characters", "x" * (LONGEST_PATH + 1): "1,025 characters", "././": "its path is empty",
}  # fmt: skip


@pytest.mark.parametrize(("name", "reason"), BAD_NAMES.items())
@pytest.mark.parametrize("pack", [tarred, zipped])
def test_entry_with_invalid_name_fails_and_others_are_read(source: Any, pack: Any, name: str, reason: str) -> None:
    found = contents(source(pack({name: b"x", **GOOD})))
    assert {path: found.pop(path) for path in GOOD} == GOOD
    if name == "././" and pack is zipped:  # a folder there
        assert found == {}
        return
    ((path, why),) = found.items()
    assert reason in str(why)
    assert path.isprintable()


def test_windows_names_are_read_and_bytes_of_other_encodings_are_escaped(source: Any) -> None:
    assert contents(source(zipped({"a\\b.png": b"x", "a\\..\\..\\c": b"y"}))) == {
        "a/b.png": b"x",
        "a/../../c": "its path leads out of the archive",
    }
    archive = tarred({"caf_.png": b"x"}, kind=tarfile.USTAR_FORMAT)
    member = bytearray(archive[:512])
    member[3:4] = b"\xe9"  # Latin-1
    member[148:156] = b"%06o\0 " % sum(member[:148] + b" " * 8 + member[156:512])
    assert contents(source(bytes(member) + archive[512:])) == {"caf%E9.png": b"x"}


LINKS_AND_DEVICES = {
    tarfile.SYMTYPE: "link", tarfile.LNKTYPE: "link", tarfile.CHRTYPE: "no plain file",
    tarfile.BLKTYPE: "no plain file", tarfile.FIFOTYPE: "no plain file", tarfile.GNUTYPE_SPARSE: "no plain file",
}  # fmt: skip


@pytest.mark.parametrize(("kind", "reason"), LINKS_AND_DEVICES.items())
def test_links_and_devices_fail_and_other_entries_are_read(source: Any, kind: bytes, reason: str) -> None:
    odd = header("odd", kind, link="/etc/passwd")
    assert contents(source(tarred(GOOD, odd, kind=tarfile.GNU_FORMAT)))["odd"] == contents_reason(reason)
    assert "link" in str(contents(source(zipped(GOOD, links={"odd": b"/etc/passwd"})))["odd"])


def contents_reason(word: str) -> str:
    return {"link": "it is a link, and links are not followed", "no plain file": "it is no plain file"}[word]


@pytest.mark.parametrize("pack", [tarred, targz, zipped])
def test_truncated_archive_never_passes_for_a_complete_one(source: Any, pack: Any) -> None:
    whole = pack(GOOD)
    for end in [*range(0, len(whole), 97), 512, 1024, len(whole) - 1]:
        try:
            found = contents(source(whole[:end], ZipSource if pack is zipped else TarSource))
        except ArchiveRejected:
            continue
        assert found == GOOD, end  # only padding after the end marker is missing


def test_damaged_header_in_the_middle_does_not_end_the_archive_silently(source: Any) -> None:
    archive = bytearray(tarred(GOOD))
    archive[1024 + 512 + 20] ^= 0xFF  # within the second member's header
    with pytest.raises(ArchiveRejected, match="damaged or cut off"):
        contents(source(bytes(archive)))


def test_oversized_header_is_refused_before_it_is_read(source: Any) -> None:
    member = header("x", tarfile.XHDTYPE, size=7 * 2**30)
    with pytest.raises(ArchiveRejected, match="header that is too long"):
        contents(source(member.tobuf() + bytes(1024)))
    link = header("x", tarfile.XHDTYPE, size=12).tobuf() + b"12 path=abc\n".ljust(512, b"\0")
    with pytest.raises(ArchiveRejected):
        contents(source(5000 * link + bytes(1024)))


def test_archive_with_too_many_members_is_refused(source: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar, "MAX_ENTRIES", 4)
    monkeypatch.setattr(zip, "MAX_ENTRIES", 4)
    for pack in (tarred, zipped):
        with pytest.raises(ArchiveRejected, match="more than 4 members"):
            contents(source(pack(GOOD)))
    assert entries.MAX_ENTRIES >= 1_000_000


def test_gzip_bomb_is_refused_at_a_multiple_of_its_size(source: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = gzip.compress(tarred({"a.png": b"x", "bomb.png": bytes(8_000_000), "z.png": b"x"}))
    assert len(bomb) < 20_000
    assert contents(source(gzip.compress(tarred({"a.png": b"x", "b": bytes(1000)}))))
    monkeypatch.setattr(tar, "_SMALL_EXPANSION", 100_000)
    found = []
    with pytest.raises(ArchiveRejected, match="20 times its size"):
        found.extend(entry.path for entry in source(bomb).entries(ignored=ReasonCounts()))
    assert found[:1] == ["a.png"]


def test_zip_bomb_member_fails_and_others_are_read(source: Any) -> None:
    plain = zipped({"flat.bmp": bytes(4_000_000), "a.png": b"x"})
    assert contents(source(plain)) == {"flat.bmp": "it unpacks to more than 200 times its size", "a.png": b"x"}
    # The member claims a smaller size: nothing beyond it is read, and the checksum does not match.
    lying = bytearray(plain)
    for at in (lying.index(b"PK\x03\x04") + 22, lying.index(b"PK\x01\x02") + 24):
        lying[at : at + 4] = struct.pack("<L", 100)
    assert contents(source(bytes(lying))) == {"flat.bmp": "it is damaged", "a.png": b"x"}


def test_overlapping_zip_members_fail(source: Any) -> None:
    """D. Fifield's zip bomb: many names for one compressed kernel."""
    archive = bytearray(zipped({"a": b"x" * 500, "b": b"y" * 500}, method=zipfile.ZIP_STORED))
    first = archive.index(b"PK\x01\x02")
    second = archive.index(b"PK\x01\x02", first + 4)
    archive[second + 42 : second + 46] = archive[first + 42 : first + 46]  # the second begins where the first does
    assert contents(source(bytes(archive)))["b"] == "it is damaged"


def test_zip_members_that_cannot_be_unpacked_fail_and_others_are_read(source: Any) -> None:
    locked = bytearray(zipped({"locked": b"secret", **GOOD}))
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        locked[locked.index(mark) + at] |= 1
    assert contents(source(bytes(locked))) == {"locked": "it is encrypted", **GOOD}
    packed = contents(source(zipped(GOOD, method=zipfile.ZIP_LZMA)))
    assert set(packed.values()) == {"it is compressed in a way that is not taken; deflate is"}
    broken = bytearray(zipped({"a": b"x" * 500}, method=zipfile.ZIP_STORED))
    broken[100] ^= 1
    assert contents(source(bytes(broken))) == {"a": "it is damaged"}


def test_oversized_zip_directory_is_refused_before_it_is_read(source: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zip, "MAX_DIRECTORY_BYTES", 250)
    archive = zipped(GOOD)
    with pytest.raises(ArchiveRejected, match="Send a tar archive"):
        contents(source(archive))
    large = io.BytesIO()
    with zipfile.ZipFile(large, "w") as file, monkeypatch.context() as patch:
        patch.setattr(zipfile, "ZIP64_LIMIT", 10)  # writes zip64 records, as archives beyond 4 GB do
        patch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 2)
        for name, data in GOOD.items():
            file.writestr(name, data)
        file.close()
    assert zip._directory_bytes(large) > 250
    with pytest.raises(ArchiveRejected, match="Send a tar archive"):
        contents(source(large.getvalue()))
    monkeypatch.setattr(zip, "MAX_DIRECTORY_BYTES", 10_000)
    assert contents(source(large.getvalue())) == GOOD


@pytest.mark.parametrize("pack", [tarred, targz, zipped])
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.data())
def test_damage_at_any_byte_ends_in_a_service_error(source: Any, pack: Any, data: st.DataObject) -> None:
    archive = bytearray(pack(GOOD))
    for _ in range(data.draw(st.integers(1, 5))):
        archive[data.draw(st.integers(0, len(archive) - 1))] = data.draw(st.integers(0, 255))
    with suppress(ArchiveRejected):
        contents(source(bytes(archive), ZipSource if pack is zipped else TarSource))


def test_read_limit_holds_whatever_size_a_member_claims(source: Any) -> None:
    for pack in (tarred, zipped):
        for entry in source(pack({"a": bytes(range(256)) * 100})).entries():
            with pytest.raises(ImageTooLarge, match="10,000 bytes"):
                entry.read(LIMIT)
