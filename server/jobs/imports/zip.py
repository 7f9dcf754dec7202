"""Zip archives, read member by member; nothing is ever unpacked to a path."""

from __future__ import annotations

import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import IO, ClassVar

from server.domain.errors import ArchiveRejected, EntryRejected
from server.jobs.imports.archive_entries import MAX_ENTRIES, Entry, make_entry, may_be_hostile
from server.jobs.imports.progress import report_progress
from server.jobs.report import ReasonCounts
from server.jobs.upload import Upload

__all__ = ["MAX_DIRECTORY_BYTES", "MAX_EXPANSION", "ZipSource"]

MAX_DIRECTORY_BYTES = 64 * 2**20
"""Bytes of an archive's directory, which takes about five times as much memory: 500,000 usual names."""

MAX_EXPANSION = 200
"""How many times its packed size a member may have: images hardly shrink, except for the plainest BMP."""

_SMALL = 2**20  # any member may unpack to that
_SMALL_TOTAL = 64 * 2**20  # any archive may
_ENCRYPTED, _UTF_8 = 0x1, 0x800
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
_UNICODE_PATH = 0x7075


class ZipSource:
    """The members of an uploaded archive."""

    start: ClassVar[int] = -1

    def __init__(self, upload: Upload) -> None:
        self._upload = upload

    def entries(self, after: int | None = None, ignored: ReasonCounts | None = None) -> Iterator[Entry]:
        """See :class:`Source`; a position is the member's number from 0."""
        with ExitStack() as stack:
            with may_be_hostile(lambda: ArchiveRejected("it is not a zip archive, or it is damaged or cut off")):
                file = stack.enter_context(self._upload.open())
                size = _directory_bytes(file)
                if size > MAX_DIRECTORY_BYTES:
                    raise ArchiveRejected(
                        f"its table of contents has {size:,} bytes; at most {MAX_DIRECTORY_BYTES:,} are taken. "
                        "Send a tar archive"
                    )
                archive = stack.enter_context(zipfile.ZipFile(file))
            members = archive.infolist()
            self._check_total(members)
            for number, member in enumerate(members):
                report_progress()
                name = _name(member)
                if name.endswith("/") or (after is not None and number <= after):
                    continue
                content = partial(_content, archive, member)
                found = make_entry(name, number, content, _fault(member), ignored=ignored)
                if found is not None:
                    yield found

    def _check_total(self, members: list[zipfile.ZipInfo]) -> None:
        if len(members) > MAX_ENTRIES:
            raise ArchiveRejected(f"the archive has more than {MAX_ENTRIES:,} members")
        unpacked = sum(member.file_size for member in members if _fault(member) is None)
        if unpacked > _SMALL_TOTAL + MAX_EXPANSION * self._upload.size:
            raise ArchiveRejected(f"the archive unpacks to more than {MAX_EXPANSION} times its size")


def _directory_bytes(file: IO[bytes]) -> int:
    """Return the size of the directory that :mod:`zipfile` will read whole: found by its own function, so no other."""
    end = zipfile._EndRecData(file)  # type: ignore[attr-defined]
    return int(end[zipfile._ECD_SIZE])  # type: ignore[attr-defined]


def _name(member: zipfile.ZipInfo) -> str:
    """Return the name with forward slashes.

    Without the flag for UTF-8 the bytes may be UTF-8 nevertheless (macOS and many others write it so), or an extra
    field may have the name; else they are code page 437.
    """
    name = member.orig_filename
    if not member.flag_bits & _UTF_8:
        raw = name.encode("cp437")
        name = _unicode_path(member.extra, raw) or _decoded(raw) or name
    return name.replace("\\", "/")


def _unicode_path(extra: bytes, raw: bytes) -> str | None:
    """Return the name in the Info-ZIP Unicode Path field, which is valid only for ``raw``."""
    while len(extra) >= 4:
        field, size = struct.unpack_from("<HH", extra)
        if field == _UNICODE_PATH and size > 5 and extra[4] == 1:
            (crc,) = struct.unpack_from("<L", extra, 5)
            return _decoded(extra[9 : 4 + size]) if crc == zlib.crc32(raw) else None
        extra = extra[4 + size :]
    return None


def _decoded(raw: bytes) -> str | None:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None


def _fault(member: zipfile.ZipInfo) -> str | None:
    mode = member.external_attr >> 16  # of Unix; 0 where the archive was not made there
    if stat.S_ISLNK(mode):
        return "it is a link, and links are not followed"
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        return "it is no plain file"
    if member.flag_bits & _ENCRYPTED:
        return "it is encrypted"
    if member.compress_type not in _METHODS:
        return "it is compressed in a way that is not taken; deflate is"
    if member.file_size > max(_SMALL, MAX_EXPANSION * member.compress_size):
        return f"it unpacks to more than {MAX_EXPANSION} times its size"
    return None


@contextmanager
def _content(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Iterator[IO[bytes]]:
    with may_be_hostile(lambda: EntryRejected("it is damaged")), archive.open(member) as file:
        yield file
