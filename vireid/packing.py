"""A folder of crops as a tar archive that is made while it is sent."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

__all__ = ["MANIFESTS", "packed", "packed_size"]

MANIFESTS = ("manifest.csv", "manifest.jsonl")
"""Names of the file that says what is known of the others."""


class _Sink(io.RawIOBase):
    """Keeps what is written until it is taken."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: bytes, /) -> int:  # type: ignore[override]
        self._parts.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        taken = b"".join(self._parts)
        self._parts.clear()
        return taken


def packed(folder: Path, files: Iterable[Path]) -> Iterator[bytes]:
    """The blocks of a tar archive of ``files``, named by their paths below ``folder``; one file in memory at a time.

    Nothing but name and content is told of a file.

    Raises:
        OSError: a file cannot be read.
    """
    sink = _Sink()
    with tarfile.open(fileobj=sink, mode="w|", dereference=True) as archive:
        for path in files:
            archive.add(path, path.relative_to(folder).as_posix(), recursive=False, filter=_bare)
            yield sink.take()
    yield sink.take()


def packed_size(folder: Path, files: Iterable[Path]) -> int:
    """Bytes of the archive, as long as no file changes."""
    size = 2 * tarfile.BLOCKSIZE  # its end
    for path in files:
        size += len(tarfile.TarInfo(path.relative_to(folder).as_posix()).tobuf())
        size += -(-path.stat().st_size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
    return -(-size // tarfile.RECORDSIZE) * tarfile.RECORDSIZE


def _bare(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mtime, member.mode = 0, 0o644
    return member
