"""A lock that allows one process per data directory."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from server.storage.startup_errors import DirectoryLocked

__all__ = ["DirectoryLock"]


class DirectoryLock:
    """Holds ``flock`` on ``DIRECTORY/LOCK`` from construction to ``close``, and writes the process id into it.

    The kernel releases the lock with the process, so a crash leaves nothing to clean up. A missing directory is
    created, readable by its owner only. Not for network file systems.

    Raises:
        DirectoryLocked: at once, when another process (or another lock of this one) holds it.
        OSError: the directory cannot be created or written.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file = os.open(directory / "LOCK", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            written = os.pread(self._file, 32, 0).strip()
            os.close(self._file)
            raise DirectoryLocked(directory, int(written) if written.isdigit() else None) from None
        os.truncate(self._file, 0)
        os.pwrite(self._file, b"%d\n" % os.getpid(), 0)

    def close(self) -> None:
        """Release the directory. The file stays: removing it would allow two processes to lock two files."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
