"""Problems of the storage that make the server not ready."""

from __future__ import annotations

import os
from pathlib import Path

from sqlalchemy import Engine

from server.storage.transactions import is_damaged

__all__ = ["storage_problems"]

_LEAST_FREE_BYTES = 512 << 10


def storage_problems(engine: Engine, data_dir: Path) -> list[str]:
    """Return what is wrong with the database or its disk, without paths; empty if nothing is."""
    problems = ["the database is damaged; restore a backup"] if is_damaged(engine) else []
    disk = os.statvfs(data_dir)
    if disk.f_bavail * disk.f_frsize < _LEAST_FREE_BYTES:
        problems.append("the disk of the data directory is full")
    return problems
