"""A folder of crops as a tar archive, produced while it is sent."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

__all__ = ["tar_size", "tar_stream"]


class _Buffer(io.RawIOBase):
    """Holds what is written until it is read."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: bytes, /) -> int:  # type: ignore[override]
        self._parts.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        content = b"".join(self._parts)
        self._parts.clear()
        return content


def tar_stream(folder: Path, files: Iterable[Path]) -> Iterator[bytes]:
    """Yield the blocks of a tar archive of ``files``, named by their paths below ``folder``.

    One file is in memory at a time. The archive holds only names and contents: no owners, times or modes.

    Raises:
        OSError: a file cannot be read.
    """
    buffer = _Buffer()
    with tarfile.open(fileobj=buffer, mode="w|", dereference=True) as archive:
        for path in files:
            archive.add(path, path.relative_to(folder).as_posix(), recursive=False, filter=_anonymous)
            yield buffer.take()
    yield buffer.take()


def tar_size(folder: Path, files: Iterable[Path]) -> int:
    """Return the size of the archive in bytes, as long as no file changes."""
    size = 2 * tarfile.BLOCKSIZE  # its end
    for path in files:
        size += len(tarfile.TarInfo(path.relative_to(folder).as_posix()).tobuf())
        size += -(-path.stat().st_size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
    return -(-size // tarfile.RECORDSIZE) * tarfile.RECORDSIZE


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mtime, member.mode = 0, 0o644
    return member
