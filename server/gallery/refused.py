"""Why the server does not start over its data. Each message says what to do; none of them reaches an HTTP answer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

__all__ = ["DatabaseDamaged", "DatabaseMissing", "DatabaseTooNew", "DirectoryLocked", "StartError"]


class StartError(Exception):
    """The data or the machine is not in a state that may be served."""


class DirectoryLocked(StartError):
    """Another process uses the data directory. ``pid`` is what its lock file says, None if it says nothing."""

    def __init__(self, directory: Path, pid: int | None) -> None:
        owner = "another process" if pid is None else f"process {pid}"
        super().__init__(
            f"{directory} is in use by {owner}. A data directory serves one process at a time: "
            "stop the other one, or give this one a directory of its own."
        )
        self.directory, self.pid = directory, pid


class DatabaseMissing(StartError):
    """The directory holds what belongs to a database (``found``), and no database."""

    def __init__(self, database: Path, found: Sequence[str]) -> None:
        super().__init__(
            f"{database} is missing, while {database.parent} holds {', '.join(found)}, which came with it. "
            "Nothing was changed. Put the database back, from a backup if need be, or start with an empty directory."
        )
        self.database, self.found = database, tuple(found)


class DatabaseTooNew(StartError):
    """The database was written by a newer version (or by something else): its schema version is unknown here."""

    def __init__(self, database: str, found: str, newest: str) -> None:
        super().__init__(
            f"{database} has schema version {found}, this program knows versions up to {newest}. "
            "Start it with the version of vireid that wrote it, or a newer one. Nothing was changed."
        )
        self.database, self.found, self.newest = database, found, newest


class DatabaseDamaged(StartError):
    """The database is not what was written. Nothing of it is served."""

    def __init__(self, database: str, finding: str) -> None:
        super().__init__(
            f"{database} is damaged: {finding}. Nothing of it is served. Keep a copy of the whole data directory, "
            "then restore a backup in its place, or save what is readable with the sqlite3 command `.recover`."
        )
        self.database, self.finding = database, finding
