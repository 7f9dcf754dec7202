"""Room on the disk for erasing when there is no other: deleting writes before it frees."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock

__all__ = ["RESERVE_BYTES", "Reserve"]

RESERVE_BYTES = 8 << 20
"""Twice SQLite's log, which must fit into the database before it can be emptied."""

_MARGIN_BYTES = 1 << 20
"""Left free when the file is made anew on a full disk, for what is written about the erasure."""
_SHARE = 4
"""At most one part in so many of a small disk."""

log = logging.getLogger(__name__)


class Reserve:
    """A file that holds nothing but room, given up while something is erased. As large as the disk allows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._one = Lock()

    @contextmanager
    def released(self) -> Iterator[None]:
        """Without the file inside, with it again afterwards. One thread at a time."""
        with self._one:
            self._path.unlink(missing_ok=True)
            try:
                yield
            finally:
                self.keep()

    def keep(self) -> None:
        """Make the file, or bring it to its full size. Never raises: no room means no reserve."""
        try:
            disk = os.statvfs(self._path.parent)
            held = self._path.stat().st_size if self._path.exists() else 0
            free = disk.f_bavail * disk.f_frsize - _MARGIN_BYTES
            size = min(RESERVE_BYTES, disk.f_blocks * disk.f_frsize // _SHARE, held + free)
            if size > held:
                self._grow(size)
        except OSError as error:
            log.warning("no room is kept for erasing on a full disk: %s", error)

    def _grow(self, size: int) -> None:
        file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(file, 0, size)
        except OSError:
            with suppress(OSError):
                self._path.unlink()
            raise
        finally:
            os.close(file)
