"""Files that survive a crash: written to the disk, and put in place by one rename."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import partial
from hashlib import sha256
from pathlib import Path

__all__ = ["fsync_directory", "publish_file", "write_atomically", "write_durably"]


def write_durably(path: Path, blocks: Iterable[bytes | memoryview]) -> str:
    """Write a file to the disk, readable by its owner only; return its SHA-256 (hex). A failure removes the file."""
    checksum = sha256()
    try:
        with open(path, "wb", opener=partial(os.open, mode=0o600)) as file:
            for block in blocks:
                file.write(block)
                checksum.update(block)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        path.unlink(missing_ok=True)
        raise
    return checksum.hexdigest()


def write_atomically(path: Path, content: bytes) -> None:
    """Create or replace a file: after a crash it has either the old or the new content."""
    unfinished = path.with_name(f"{path.name}.new")
    write_durably(unfinished, [content])
    publish_file(unfinished, path)


def publish_file(unfinished: Path, path: Path) -> None:
    """Rename a file whose content is on the disk, and write its directory to the disk."""
    unfinished.rename(path)
    fsync_directory(path.parent)


def fsync_directory(directory: Path) -> None:
    """Write the entries of a directory to the disk."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
