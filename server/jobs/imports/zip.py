"""Zip archives, read member by member; nothing is ever unpacked to a path."""

from __future__ import annotations

import stat
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, ClassVar

from server.errors import ArchiveRejected, EntryRejected
from server.jobs.imports.entries import MAX_ENTRIES, Entry, entry, may_be_hostile

__all__ = ["MAX_DIRECTORY_BYTES", "MAX_EXPANSION", "ZipSource"]

MAX_DIRECTORY_BYTES = 64 * 2**20
"""Of an archive's table of contents, which is held in memory (about five times as large there): 500,000 usual names."""

MAX_EXPANSION = 200
"""How many times its packed size a member may have: pictures shrink by next to nothing, but for the plainest BMP."""

_SMALL = 2**20  # any member may unpack to that
_ENCRYPTED = 0x1
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}

_END = struct.Struct("<4s4H2LH")
_END_MARK = b"PK\x05\x06"
_LONGEST_COMMENT = 2**16
_LOCATOR = struct.Struct("<4sLQL")
_LOCATOR_MARK = b"PK\x06\x07"
_END_64 = struct.Struct("<4sQ2H2L4Q")


class ZipSource:
    """The members of the archive in file ``path``."""

    start: ClassVar[int] = -1

    def __init__(self, path: Path) -> None:
        self._path = path

    def entries(self, after: int | None = None) -> Iterator[Entry]:
        """See :class:`Source`; a position is the member's number from 0."""
        with may_be_hostile(lambda: ArchiveRejected("it is not a zip archive, or it is damaged or cut off")):
            with self._path.open("rb") as file:
                size = _directory_bytes(file)
            if size > MAX_DIRECTORY_BYTES:
                raise ArchiveRejected(
                    f"its table of contents has {size:,} bytes; at most {MAX_DIRECTORY_BYTES:,} are taken. "
                    "Send a tar archive"
                )
            archive = zipfile.ZipFile(self._path)
        with archive:
            members = archive.infolist()
            if len(members) > MAX_ENTRIES:
                raise ArchiveRejected(f"the archive has more than {MAX_ENTRIES:,} members")
            for number, member in enumerate(members):
                name = member.filename.replace("\\", "/")  # as some programs write it
                if name.endswith("/") or (after is not None and number <= after):
                    continue
                found = entry(name, number, partial(_content, archive, member), _fault(member))
                if found is not None:
                    yield found


def _directory_bytes(file: IO[bytes]) -> int:
    """Bytes of the table of contents, as the end of the archive states them; :mod:`zipfile` reads it unseen."""
    length = file.seek(0, 2)
    start = max(0, length - _LONGEST_COMMENT - _END.size - _LOCATOR.size)
    file.seek(start)
    tail = file.read()
    at = tail.rfind(_END_MARK)
    directory = int(_END.unpack_from(tail, at)[5])
    before = at - _LOCATOR.size
    if before >= 0 and tail[before : before + 4] == _LOCATOR_MARK:
        file.seek(_LOCATOR.unpack_from(tail, before)[2])
        directory = max(directory % 0xFFFFFFFF, _END_64.unpack(file.read(_END_64.size))[8])
    return directory


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
