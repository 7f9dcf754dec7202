"""Disk space reserved for deletions on a full disk: a deletion writes before it frees space."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock

__all__ = ["RESERVE_BYTES", "DiskReserve"]

RESERVE_BYTES = 8 << 20
"""Twice SQLite's log, which must fit into the database before it can be emptied."""

_MARGIN_BYTES = 1 << 20
"""Left free when the file is created again on a full disk, for the records of the erasure."""
_DISK_FRACTION = 4
"""The reserve takes at most this fraction (1/n) of a small disk."""

log = logging.getLogger(__name__)


class DiskReserve:
    """A file of zeros that is removed while data is deleted. As large as the disk allows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = Lock()

    @contextmanager
    def released(self) -> Iterator[None]:
        """Remove the file within the context and create it again afterwards. One thread at a time."""
        with self._lock:
            self._path.unlink(missing_ok=True)
            try:
                yield
            finally:
                self.keep()

    def keep(self) -> None:
        """Create the file or grow it to its full size. Never raises: without room there is no reserve."""
        try:
            disk = os.statvfs(self._path.parent)
            held = self._path.stat().st_size if self._path.exists() else 0
            free = disk.f_bavail * disk.f_frsize - _MARGIN_BYTES
            size = min(RESERVE_BYTES, disk.f_blocks * disk.f_frsize // _DISK_FRACTION, held + free)
            if size > held:
                self._grow(size)
        except OSError as error:
            log.warning("no space is reserved for deletions on a full disk: %s", error)

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
