"""Tar archives, plain or gzipped, read member by member in constant memory; nothing is ever unpacked to a path.

:mod:`tarfile` parses the blocks of headers; what joins them is written here, because it reads extended headers and
sparse maps without bounds.
"""

from __future__ import annotations

import gzip
import io
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, ClassVar

from server.domain.errors import ArchiveRejected, EntryRejected
from server.jobs.imports.archive_entries import MAX_ENTRIES, Entry, damaged, make_entry, may_be_hostile
from server.jobs.imports.progress import report_progress
from server.jobs.report import ReasonCounts
from server.jobs.upload import Upload

__all__ = ["MAX_EXPANSION", "TarSource"]

MAX_EXPANSION = 20
"""How many times its own size a gzipped archive may have when unpacked: images hardly shrink."""

_SMALL_EXPANSION = 64 * 2**20  # allowed to any archive
_LONGEST_HEADER = 2**20
_HEADERS_AT_FIRST, _HEADERS_PER_MEMBER = 2**20, 4096
"""Bytes of extended headers that an archive may have in all."""
_MOST_SPARSE_BLOCKS = 1024
_MOST_LINKS = 500_000
_CHUNK = 2**20

_BLOCK = tarfile.BLOCKSIZE
_NO_BLOCK = bytes(_BLOCK)
_EXTENDED = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
_OTHER_FORMATS = {
    b"\xfd7zXZ": "xz", b"BZh": "bzip2", b"\x28\xb5\x2f\xfd": "zstd", b"7z\xbc\xaf": "7-Zip", b"Rar!": "RAR",
}  # fmt: skip
_GZIP = b"\x1f\x8b"

_NOT_TAR = "it is not a tar archive, or it is damaged or cut off"
_LINK = "it is a link, and links are not followed"


@dataclass(slots=True)
class _Member:
    """A member by its headers; ``size`` bytes of content lie at ``offset`` of the unpacked archive."""

    name: str
    type: bytes
    size: int
    target: str
    sparse: bool
    offset: int

    @property
    def has_content(self) -> bool:
        return self.type not in (tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE)

    @property
    def fault(self) -> str | None:
        if self.type == tarfile.SYMTYPE:
            return _LINK
        if self.sparse or self.type not in (*tarfile.REGULAR_TYPES, tarfile.LNKTYPE):
            return "it is no plain file"
        return None


class TarSource:
    """The members of an uploaded archive. Hard links to earlier members have their content.

    With ``any_file`` they need not be crops.
    """

    start: ClassVar[int] = -1

    def __init__(self, upload: Upload, *, any_file: bool = False) -> None:
        self._upload, self._any_file = upload, any_file
        self._targets: set[str] | None = None

    def entries(self, after: int | None = None, ignored: ReasonCounts | None = None) -> Iterator[Entry]:
        """See :class:`Source`; a position is the member's number from 0."""
        if ignored is None and self._targets is None:
            for _ in self.entries(ignored=ReasonCounts()):
                pass
        targets: set[str] = set()
        with ExitStack() as stack:
            with may_be_hostile(_not_tar):
                stream = stack.enter_context(_open(self._upload))
            contents = stack.enter_context(_Contents(stream, self._targets or set(), self._upload.path.parent))
            for number, member in enumerate(_members(stream)):
                if number >= MAX_ENTRIES:
                    raise ArchiveRejected(f"the archive has more than {MAX_ENTRIES:,} members")
                if member.type == tarfile.LNKTYPE and len(targets) < _MOST_LINKS:
                    targets.add(member.target)
                if ignored is None:
                    contents.keep(member)
                if member.type == tarfile.DIRTYPE or (after is not None and number <= after):
                    continue
                content = partial(contents.open, member, number)
                found = make_entry(member.name, number, content, member.fault, ignored=ignored, any_file=self._any_file)
                if found is not None:
                    yield found
        self._targets = targets


class _Stream:
    """The unpacked bytes of an archive, read forwards."""

    def __init__(self, file: IO[bytes] | gzip.GzipFile, limit: int | None) -> None:
        self._file, self._limit = file, limit
        self.position = 0

    def read(self, size: int) -> bytes:
        """Return ``size`` bytes, fewer only at the end."""
        parts = []
        while size and (data := self._file.read(min(size, _CHUNK))):
            parts.append(data)
            size -= len(data)
            self._advance(len(data))
        return b"".join(parts)

    def skip_to(self, position: int) -> None:
        """Pass over everything before ``position``."""
        if self._limit is None:
            self._file.seek(position)
            self.position = position
        while self.position < position:
            if not self.read(min(position - self.position, _CHUNK)):
                raise EOFError

    @property
    def forward_only(self) -> bool:
        """Whether it is compressed, so that nothing that was passed can be read again."""
        return self._limit is not None

    def read_at(self, position: int, size: int) -> bytes:
        """Return bytes from anywhere; only of an archive that is not compressed."""
        self._file.seek(position)
        data = self._file.read(size)
        self._file.seek(self.position)
        return data

    def _advance(self, size: int) -> None:
        self.position += size
        report_progress()
        if self._limit is not None and self.position > self._limit:
            raise ArchiveRejected(f"the archive unpacks to more than {MAX_EXPANSION} times its size")


class _Slice(io.RawIOBase):
    """A part of a file that can be read anywhere, as a file that can only be read."""

    def __init__(self, read_at: Callable[[int, int], bytes], start: int, size: int) -> None:
        self._read_at, self._start, self._size, self._place = read_at, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0, /) -> int:
        self._place = max(0, offset + (0, self._place, self._size)[whence])
        return self._place

    def tell(self) -> int:
        return self._place

    def readinto(self, buffer: Any, /) -> int:
        wanted = min(len(buffer), max(0, self._size - self._place))
        data = self._read_at(self._start + self._place, wanted)
        if len(data) < wanted:
            raise EOFError
        buffer[:wanted] = data
        self._place += wanted
        return wanted


class _Rest(io.RawIOBase):
    """The content of the present member of a compressed archive, read forwards."""

    def __init__(self, stream: _Stream, end: int) -> None:
        self._stream, self._end = stream, end

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        wanted = min(len(buffer), self._end - self._stream.position)
        data = self._stream.read(wanted)
        if len(data) < wanted:
            raise EOFError
        buffer[:wanted] = data
        return wanted


class _Contents:
    """Opens the content of members. That of hard links is kept: in a temporary file if the archive is compressed."""

    def __init__(self, stream: _Stream, targets: set[str], folder: Path) -> None:
        self._stream, self._targets, self._folder = stream, targets, folder
        self._places: dict[str, tuple[int, int]] = {}
        self._copies: IO[bytes] | None = None

    def __enter__(self) -> _Contents:
        return self

    def __exit__(self, *_: object) -> None:
        if self._copies is not None:
            self._copies.close()

    def keep(self, member: _Member) -> None:
        """Remember where the content of a member is, if a link names it."""
        if member.name not in self._targets:
            return
        if member.type == tarfile.LNKTYPE:
            if member.target in self._places:
                self._places[member.name] = self._places[member.target]
        elif member.fault is None:
            self._places[member.name] = (
                self._copy(member) if self._stream.forward_only else (member.offset, member.size)
            )

    @contextmanager
    def open(self, member: _Member, number: int) -> Iterator[IO[bytes]]:
        """Open the content of a member, or what a hard link names."""
        link = member.type == tarfile.LNKTYPE
        with may_be_hostile(partial(damaged, number)):
            place = self._places.get(member.target if link else member.name)
            if place is None and link:
                raise EntryRejected(_LINK)
            if self._stream.forward_only and place is None:
                raw: io.RawIOBase = _Rest(self._stream, member.offset + member.size)
            elif self._stream.forward_only and place is not None:
                raw = _Slice(self._read_copy, *place)
            else:
                raw = _Slice(self._stream.read_at, *(place or (member.offset, member.size)))
            with io.BufferedReader(raw) as file:
                yield file

    def _copy(self, member: _Member) -> tuple[int, int]:
        self._copies = self._copies or tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - closed with this
        start = self._copies.seek(0, 2)
        with io.BufferedReader(_Rest(self._stream, member.offset + member.size)) as content:
            shutil.copyfileobj(content, self._copies)
        return start, member.size

    def _read_copy(self, position: int, size: int) -> bytes:
        assert self._copies is not None  # noqa: S101 - a place in it is known
        self._copies.seek(position)
        return self._copies.read(size)


@contextmanager
def _open(upload: Upload) -> Iterator[_Stream]:
    with upload.open() as file:
        start = file.read(6)
        file.seek(0)
        for magic, name in _OTHER_FORMATS.items():
            if start.startswith(magic):
                raise ArchiveRejected(f"it is compressed with {name}; send a tar, tar.gz or zip archive")
        if not start.startswith(_GZIP):
            yield _Stream(file, None)
            return
        with gzip.GzipFile(fileobj=file) as unpacked:
            yield _Stream(unpacked, _SMALL_EXPANSION + MAX_EXPANSION * upload.size)


def _members(stream: _Stream) -> Iterator[_Member]:
    """Yield every member; zero blocks may stand between archives that were joined, and end the last."""
    count = extended = 0
    ended = False
    while True:
        with may_be_hostile(partial(damaged, count) if count else _not_tar):
            headers = _Headers(stream, _HEADERS_AT_FIRST + _HEADERS_PER_MEMBER * count - extended)
            member = headers.member(ended)
            extended += headers.size
        if member is None:
            return
        if member is _END:
            ended = True
            continue
        count, ended = count + 1, False
        yield member
        with may_be_hostile(partial(damaged, count)):
            content = member.size if member.has_content else 0
            stream.skip_to(member.offset + -(-content // _BLOCK) * _BLOCK)


def _not_tar() -> ArchiveRejected:
    return ArchiveRejected("it is not a tar archive")


_END = _Member("", b"", 0, "", sparse=False, offset=0)


class _Headers:
    """The headers of one member: its own block, and the extended ones before it, of at most ``limit`` bytes."""

    def __init__(self, stream: _Stream, limit: int) -> None:
        self._stream, self._limit, self.size = stream, limit, 0
        self._records: dict[str, str] = {}
        self._sparse = False

    def member(self, ended: bool) -> _Member | None:
        """Read up to the content of the next member; ``_END`` for a zero block, None at the end of the file."""
        while True:
            block = self._stream.read(_BLOCK)
            if block == _NO_BLOCK and not self.size:
                return _END
            if ended and len(block) < _BLOCK:
                return None
            try:
                header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
            except tarfile.HeaderError as error:
                if ended:
                    return None  # something that is not of the archive behind its end
                raise ArchiveRejected(_NOT_TAR) from error
            if header.size < 0:
                raise ArchiveRejected("the archive has a header that is too long")
            if header.type in (*_EXTENDED, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK):
                self._extend(header.type, self._content(header.size))
            elif header.type == tarfile.XGLTYPE:
                self._content(header.size)  # holds no names
            else:
                return self._member(header, block)

    def _content(self, size: int) -> bytes:
        self.size += _BLOCK + size
        if size > _LONGEST_HEADER or self.size > self._limit:
            raise ArchiveRejected("the archive has a header that is too long")
        data = self._stream.read(-(-size // _BLOCK) * _BLOCK)
        if len(data) < size:
            raise EOFError
        return data[:size]

    def _extend(self, type: bytes, content: bytes) -> None:
        if type in _EXTENDED:
            for key, value in _pax_records(content):
                self._sparse |= key.startswith("GNU.sparse.")
                self._records[key] = value
        else:
            key = "path" if type == tarfile.GNUTYPE_LONGNAME else "linkpath"
            self._records[key] = content.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")

    def _member(self, header: tarfile.TarInfo, block: bytes) -> _Member:
        more, blocks = header.type == tarfile.GNUTYPE_SPARSE and block[482], 0
        while more:
            blocks += 1
            extension = self._stream.read(_BLOCK)
            if len(extension) < _BLOCK or blocks > _MOST_SPARSE_BLOCKS:
                raise ArchiveRejected("the archive has a sparse file with too long a map; make it without --sparse")
            more = extension[504]
        get = self._records.get
        size = int(get("size", header.size))
        if size < 0:
            raise ArchiveRejected("the archive has a header that is too long")
        return _Member(
            name=get("GNU.sparse.name") or get("path", header.name),
            type=header.type,
            size=size,
            target=get("linkpath", header.linkname),
            sparse=self._sparse or header.type == tarfile.GNUTYPE_SPARSE,
            offset=self._stream.position,
        )


_KEPT = {b"path", b"linkpath", b"size", b"GNU.sparse.name", b"GNU.sparse.major", b"GNU.sparse.map", b"GNU.sparse.size"}


def _pax_records(content: bytes) -> Iterator[tuple[str, str]]:
    """Yield the records, ``LENGTH KEY=VALUE`` each, that matter; a map of a sparse file without its value."""
    place = 0
    while place < len(content) and content[place]:
        space = content.index(b" ", place, place + 20)
        length = int(content[place:space])
        if length <= space - place or place + length > len(content):
            raise ArchiveRejected("the archive has a damaged extended header")
        key, _, value = content[space + 1 : place + length - 1].partition(b"=")
        if key in _KEPT:
            yield key.decode(), "" if key == b"GNU.sparse.map" else value.decode("utf-8", "surrogateescape")
        place += length
