"""Errors over the data that prevent a start. Each message says what to do; none of them is sent over HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from server.domain.errors import StartupError

__all__ = [
    "DatabaseDamaged",
    "DatabaseInUse",
    "DatabaseMissing",
    "DatabaseTooNew",
    "DatabaseUnreachable",
    "DatabaseUnsuitable",
    "DirectoryLocked",
]


class DirectoryLocked(StartupError):
    """Another process uses the data directory. ``pid`` is from its lock file, None if that is empty."""

    def __init__(self, directory: Path, pid: int | None) -> None:
        owner = "another process" if pid is None else f"process {pid}"
        super().__init__(
            f"{directory} is in use by {owner}. A data directory serves one process at a time: "
            "stop the other one, or give this one a directory of its own."
        )
        self.directory, self.pid = directory, pid


class DatabaseInUse(StartupError):
    """Another server uses the PostgreSQL database, connected from ``host`` (None: a socket) since ``since``."""

    def __init__(self, database: str, host: str | None, since: datetime | None) -> None:
        owner = f"a server on {host or 'the machine of the database'}"
        start = f", connected since {since.isoformat(timespec='seconds')}" if since else ""
        super().__init__(
            f"{database} is in use by {owner}{start}. A database serves one server at a time: stop the other one, or "
            "give this one a database of its own."
        )
        self.database = database


class DatabaseUnreachable(StartupError):
    """There is no connection to the PostgreSQL database."""

    def __init__(self, database: str, cause: str) -> None:
        found = " ".join(cause.split()).rstrip(".?")
        super().__init__(f"{database} cannot be reached: {found}. Check VIREID_DATABASE_URL, and that PostgreSQL runs.")
        self.database = database


class DatabaseUnsuitable(StartupError):
    """The PostgreSQL database cannot hold the store."""

    def __init__(self, database: str, finding: str) -> None:
        super().__init__(f"{database} cannot be used: {finding}.")
        self.database = database


class DatabaseMissing(StartupError):
    """The directory holds files that belong to a database (``found``), but no database."""

    def __init__(self, database: Path, found: Sequence[str]) -> None:
        super().__init__(
            f"{database} is missing, while {database.parent} holds {', '.join(found)}, which belongs to it. "
            "Nothing was changed. Put the database back, from a backup if necessary, or start with an empty directory."
        )
        self.database, self.found = database, tuple(found)


class DatabaseTooNew(StartupError):
    """The schema version is unknown: a newer version, or another program, has written the database."""

    def __init__(self, database: str, found: str, newest: str) -> None:
        super().__init__(
            f"{database} has schema version {found}, this program knows versions up to {newest}. "
            "Start it with the version of vireid that wrote it, or a newer one. Nothing was changed."
        )
        self.database, self.found, self.newest = database, found, newest


class DatabaseDamaged(StartupError):
    """The database does not hold what was written. Nothing of it is served."""

    def __init__(self, database: str, finding: str) -> None:
        super().__init__(
            f"{database} is damaged: {finding}. Nothing of it is served. Keep a copy of the whole data directory, or "
            "of the PostgreSQL cluster, then restore a backup in its place. Of a SQLite file, the sqlite3 command "
            "`.recover` saves what is readable."
        )
        self.database, self.finding = database, finding
