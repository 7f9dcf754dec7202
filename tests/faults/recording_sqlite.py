"""SQLite for SQLAlchemy through apsw, with a VFS that reports what is written."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

import apsw
from sqlalchemy import create_engine

__all__ = ["recording_sqlite"]

_VFS = "vireid-recording"
Report = Callable[..., None]


@contextmanager
def recording_sqlite(report: Report) -> Iterator[None]:
    """Let the store use apsw; ``report(kind, path, number, data)`` gets each change of a file."""
    vfs = _RecordingVfs(report)
    driver = _Driver()
    try:
        with (
            patch("server.storage.connect.create_engine", partial(create_engine, module=driver)),
            patch("server.storage.transactions.sqlite3.connect", driver.connect),
        ):
            yield
    finally:
        vfs.unregister()


class _RecordingVfs(apsw.VFS):
    def __init__(self, report: Report) -> None:
        super().__init__(_VFS, "")
        self._report = report

    def xOpen(self, name: Any, flags: list[int]) -> _RecordedFile:  # noqa: N802
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        if path is not None and not os.path.exists(path):  # noqa: PTH110
            self._report("create", path)
        return _RecordedFile(self._report, path, name, flags)

    def xDelete(self, path: str, syncdir: bool) -> None:  # noqa: N802
        super().xDelete(path, syncdir)
        self._report("unlink", path)
        if syncdir:
            self._report("sync entries", os.path.dirname(path))  # noqa: PTH120


class _RecordedFile(apsw.VFSFile):
    def __init__(self, report: Report, path: str | None, name: Any, flags: list[int]) -> None:
        super().__init__("", name, flags)
        self._report, self._path = report, path

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        super().xWrite(data, offset)
        self._note("write", offset, bytes(data))

    def xTruncate(self, size: int) -> None:  # noqa: N802
        super().xTruncate(size)
        self._note("truncate", size)

    def xSync(self, flags: int) -> None:  # noqa: N802
        super().xSync(flags)
        self._note("sync")

    def _note(self, kind: str, number: int = 0, data: bytes = b"") -> None:
        if self._path is not None:
            self._report(kind, self._path, number, data)


class _Driver:
    """apsw with the part of Python's database interface that SQLAlchemy's SQLite dialect uses."""

    paramstyle = "qmark"
    sqlite_version_info = tuple(map(int, apsw.sqlite_lib_version().split(".")))
    Error = sqlite3.Error
    __getattr__ = staticmethod(partial(getattr, sqlite3))

    @staticmethod
    def connect(database: str, *_: object, **__: object) -> _Connection:
        return _Connection(database)


class _Connection:
    isolation_level: str | None = None

    def __init__(self, database: str) -> None:
        self.apsw = apsw.Connection(database, vfs=_VFS)

    def cursor(self) -> _Cursor:
        return _Cursor(self.apsw)

    def execute(self, statement: str) -> _Cursor:
        return self.cursor().execute(statement)

    def create_function(self, name: str, count: int, function: Any, **_: object) -> None:
        self.apsw.create_scalar_function(name, function, count)

    def commit(self) -> None:
        if self.apsw.in_transaction:
            self.execute("COMMIT")

    def rollback(self) -> None:
        if self.apsw.in_transaction:
            self.execute("ROLLBACK")

    def close(self) -> None:
        self.apsw.close()


class _Cursor:
    """Fetches all rows at once; that changes nothing in what is written."""

    arraysize = 1

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self._cursor = connection.cursor()
        self._cursor.exec_trace = self._trace
        self._rows: list[Any] = []
        self.description: Sequence[Any] | None = None
        self.rowcount, self.lastrowid = -1, 0

    def execute(self, statement: str, parameters: Sequence[Any] = ()) -> _Cursor:
        return self._run(self._cursor.execute, statement, tuple(parameters))

    def executemany(self, statement: str, parameters: Any) -> _Cursor:
        return self._run(self._cursor.executemany, statement, parameters)

    def fetchone(self) -> Any:
        return self._rows.pop(0) if self._rows else None

    def fetchmany(self, count: int | None = None) -> list[Any]:
        taken, self._rows = self._rows[: count or 1], self._rows[count or 1 :]
        return taken

    def fetchall(self) -> list[Any]:
        taken, self._rows = self._rows, []
        return taken

    def __iter__(self) -> Iterator[Any]:
        return iter(self.fetchall())

    def close(self) -> None:
        self._cursor.close()

    def _run(self, function: Any, statement: str, parameters: Any) -> _Cursor:
        self.description, before = None, self._connection.total_changes()
        try:
            self._rows = list(function(statement, parameters))
        except apsw.Error as error:
            raised = sqlite3.OperationalError(str(error))
            raised.sqlite_errorcode = getattr(error, "extendedresult", 0)
            raise raised from error
        self.rowcount = self._connection.total_changes() - before
        self.lastrowid = self._connection.last_insert_rowid()
        return self

    def _trace(self, cursor: Any, _statement: str, _bindings: object) -> bool:
        described = cursor.get_description()
        self.description = [(name, *[None] * 6) for name, _ in described] or None
        return True
