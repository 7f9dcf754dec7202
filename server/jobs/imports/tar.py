"""Tar archives, plain or gzipped, read member by member in constant memory; nothing is ever unpacked to a path."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import IO, ClassVar, Self

from server.errors import ArchiveRejected
from server.jobs.imports.entries import MAX_ENTRIES, Entry, damaged, entry, may_be_hostile

__all__ = ["MAX_EXPANSION", "TarSource"]

MAX_EXPANSION = 20
"""How many times its own size a gzipped archive may have: pictures shrink by next to nothing."""

_SMALL_EXPANSION = 64 * 2**20  # any archive may have that
_LONGEST_HEADER = 2**20
_EXTENDED = {
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
}
_GZIP = b"\x1f\x8b"


class TarSource:
    """The members of the archive in file ``path``."""

    start: ClassVar[int] = -1

    def __init__(self, path: Path) -> None:
        self._path = path

    def entries(self, after: int | None = None) -> Iterator[Entry]:
        """See :class:`Source`; a position is the member's number from 0."""
        with ExitStack() as stack:
            with may_be_hostile(lambda: ArchiveRejected("it is not a tar archive")):
                archive = stack.enter_context(_open(self._path, stack))
            number = -1
            while True:
                with may_be_hostile(partial(damaged, number + 1)):
                    member = archive.next()
                if member is None:
                    return
                archive.members.clear()  # type: ignore[attr-defined]  # it would remember every member
                number += 1
                if number >= MAX_ENTRIES:
                    raise ArchiveRejected(f"the archive has more than {MAX_ENTRIES:,} members")
                if member.isdir() or (after is not None and number <= after):
                    continue
                found = entry(member.name, number, partial(_content, archive, member, number), _fault(member))
                if found is not None:
                    yield found


class _Header(tarfile.TarInfo):
    """A member's header, refused where :mod:`tarfile` would end in silence, or read without bounds."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """Parse a block of 512 bytes."""
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:  # taken for the end of the archive otherwise
            raise ArchiveRejected("it is not a tar archive, or it is damaged or cut off") from error
        if header.size < 0 or (header.type in _EXTENDED and header.size > _LONGEST_HEADER):
            raise ArchiveRejected("the archive has a header that is too long")
        return header


class _Bounded(io.RawIOBase):
    """What ``file`` unpacks to, up to ``limit`` bytes."""

    def __init__(self, file: gzip.GzipFile, limit: int) -> None:
        self._file, self._left = file, limit

    def read(self, size: int = -1, /) -> bytes:
        data = self._file.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise ArchiveRejected(f"the archive unpacks to more than {MAX_EXPANSION} times its size")
        return data


def _open(path: Path, stack: ExitStack) -> tarfile.TarFile:
    file = stack.enter_context(path.open("rb"))
    zipped = file.read(len(_GZIP)) == _GZIP
    file.seek(0)
    if not zipped:
        return tarfile.open(fileobj=file, mode="r:", tarinfo=_Header)
    limit = _SMALL_EXPANSION + MAX_EXPANSION * path.stat().st_size
    unpacked = stack.enter_context(gzip.GzipFile(fileobj=file))
    return tarfile.open(fileobj=_Bounded(unpacked, limit), mode="r|", tarinfo=_Header)


def _fault(member: tarfile.TarInfo) -> str | None:
    if member.issym() or member.islnk():
        return "it is a link, and links are not followed"
    if member.issparse() or not member.isreg():
        return "it is no plain file"
    return None


@contextmanager
def _content(archive: tarfile.TarFile, member: tarfile.TarInfo, number: int) -> Iterator[IO[bytes]]:
    with may_be_hostile(partial(damaged, number)):
        file = archive.extractfile(member)
        if file is None:
            raise ValueError(f"{member.name} has no content")
        yield file
