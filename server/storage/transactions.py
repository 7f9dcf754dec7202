"""Transactions: a read sees one moment, writes share commits, and a committed write is on disk."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from threading import Event, Lock

import psycopg
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, PendingRollbackError, SQLAlchemyError, StatementError
from sqlalchemy.exc import TimeoutError as PoolExhausted

from server.domain.errors import DatabaseUnavailable, StorageFull
from server.storage.startup_errors import DatabaseDamaged

__all__ = [
    "COMMITTER",
    "WRITES",
    "GroupCommitter",
    "after_commit",
    "database_name",
    "is_damaged",
    "reading",
    "scrub",
    "writing",
]

_log = logging.getLogger(__name__)

COMMITTER = "vireid_writer"
"""Execution option of an engine: its ``GroupCommitter``."""
WRITES = "vireid_writes"
"""Execution option of a connection whose transaction will write."""

_LARGEST_GROUP = 64
"""Most writes that share a commit: the first of them waits for the last."""

_SQLITE_FULL = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE}
_SQLITE_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_POSTGRES_FULL = "53100"
_POSTGRES_DAMAGED = "XX001", "XX002"


class _Member:
    """One write of a group. ``error`` is its own; an error of the group takes precedence."""

    def __init__(self) -> None:
        self.callbacks: list[Callable[[], None]] = []
        self.error: BaseException | None = None


class _Group:
    """Writes that are committed together."""

    def __init__(self, engine: Engine) -> None:
        self.connection = engine.connect().execution_options(**{WRITES: True})
        try:
            self.transaction = self.connection.begin()
        except BaseException:
            self.connection.close()
            raise
        self.members: list[_Member] = []
        self.erases = False
        self.error: BaseException | None = None
        self.done = Event()

    def end(self) -> None:
        """Commit, unless the whole group has failed."""
        with self.connection:
            try:
                if self.error is None and self.members:
                    self.transaction.commit()
            except BaseException as error:
                self.error = error
            if self.error is not None:
                self.connection.invalidate()  # nothing of the transaction remains, whatever its state


class GroupCommitter:
    """Runs the writes of an engine one after the other, and commits groups of them together.

    Each write is a savepoint, so it can fail without the others. A write that none waits behind commits for all writes
    before it, which wait for that; the next group forms during the commit. A failed commit, and an error that ends the
    whole transaction (a full disk), fail every write of the group.
    """

    def __init__(self) -> None:
        self.turn = Lock()
        self.unscrubbed = False
        self.damaged = False
        self._waiting = 0
        self._counting = Lock()
        self._group: _Group | None = None
        self._member: _Member | None = None

    @contextmanager
    def write(self, engine: Engine, *, erases: bool) -> Iterator[Connection]:
        with self._in_turn():
            group = self._group = self._group or _Group(engine)
            member = self._member = _Member()
            try:
                with _savepoint(group):
                    yield group.connection
                group.members.append(member)
                group.erases |= erases
            finally:
                self._member = None
                if group.error or not self._waiting or len(group.members) >= _LARGEST_GROUP:
                    self._group = None
                    self._commit(engine, group)
        group.done.wait()
        if error := group.error or member.error:
            raise error

    def after_commit(self, callback: Callable[[], None]) -> None:
        if self._member is None:
            raise RuntimeError("after_commit was called outside of a write")
        self._member.callbacks.append(callback)

    @contextmanager
    def _in_turn(self) -> Iterator[None]:
        self._queue(1)
        try:
            self.turn.acquire()
        finally:
            self._queue(-1)
        try:
            yield
        finally:
            self.turn.release()

    def _queue(self, more: int) -> None:
        with self._counting:
            self._waiting += more

    def _commit(self, engine: Engine, group: _Group) -> None:
        try:
            group.end()
            if group.error is None:
                _call_back(group.members)
                self.unscrubbed |= group.erases
                if self.unscrubbed:
                    self.unscrubbed = not _empty_log(engine)
        finally:
            group.done.set()


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """Open a transaction that sees the database as of its first statement.

    Raises:
        DatabaseDamaged: a page that was read is broken.
        DatabaseUnavailable: the connection is lost.
    """
    with _translated(engine), engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            connection.execution_options(isolation_level="REPEATABLE READ")
        with connection.begin():
            yield connection
    if _writer_of(engine).unscrubbed:  # perhaps because of this reader
        scrub(engine, wait=False)


@contextmanager
def writing(engine: Engine, *, erases: bool = False) -> Iterator[Connection]:
    """Open a write: on disk when the block is left, undone on any exception. One at a time, several per commit.

    ``erases``: when the block is left, no file holds deleted data, unless a reader still needs it; then the last such
    reader removes it.

    Raises:
        StorageFull: no room on the disk; nothing was stored.
        DatabaseDamaged: a page that was read is broken; nothing was stored.
        DatabaseUnavailable: the connection is lost; a write whose commit was under way may be stored nevertheless.
    """
    with _translated(engine), _writer_of(engine).write(engine, erases=erases) as connection:
        yield connection


def after_commit(engine: Engine, callback: Callable[[], None]) -> None:
    """Within ``writing``: call ``callback`` when the write is on disk and before the block is left.

    Callbacks run in the order of the writes, never those of two writes at the same time. An exception in a callback is
    raised by its write, which is stored nevertheless.
    """
    _writer_of(engine).after_commit(callback)


def scrub(engine: Engine, *, wait: bool = True) -> bool | None:
    """Empty SQLite's write-ahead log into the database, so that no file holds deleted data.

    Returns False if it must be tried again: a reader still uses the log, the disk has no room, or, without ``wait``, a
    write is running. Returns None for PostgreSQL, whose files and log hold deleted data until their space is reused.
    """
    if engine.dialect.name != "sqlite":
        return None
    writer = _writer_of(engine)
    if not writer.turn.acquire(blocking=wait):
        return False
    try:
        writer.unscrubbed = not _empty_log(engine)
        return not writer.unscrubbed
    finally:
        writer.turn.release()


def is_damaged(engine: Engine) -> bool:
    """Return whether a broken page has been read since the start."""
    return _writer_of(engine).damaged


def database_name(engine: Engine) -> str:
    """Return the name of the database for messages: its file, or its URL without the password."""
    return engine.url.database or engine.url.render_as_string(hide_password=True)


@contextmanager
def _savepoint(group: _Group) -> Iterator[None]:
    """Undo a failed write. If the undo fails, the transaction is lost, and the group with it."""
    try:
        group.connection.exec_driver_sql("SAVEPOINT member")
        yield
        group.connection.exec_driver_sql("RELEASE SAVEPOINT member")
    except BaseException as error:
        try:
            group.connection.exec_driver_sql("ROLLBACK TO SAVEPOINT member")
            group.connection.exec_driver_sql("RELEASE SAVEPOINT member")
        except SQLAlchemyError:
            group.error = error
        raise


def _call_back(members: list[_Member]) -> None:
    for member in members:
        try:
            for callback in member.callbacks:
                callback()
        except BaseException as error:
            member.error = error


def _empty_log(engine: Engine) -> bool:
    if engine.dialect.name != "sqlite":
        return True
    # A separate connection, because this one must not wait for readers.
    with closing(sqlite3.connect(engine.url.database or "", timeout=0)) as connection:
        try:
            (busy, _, _) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except sqlite3.OperationalError as error:
            _log.warning("the write-ahead log could not be emptied yet: %s", error)
            return False
    return not busy


def _writer_of(engine: Engine) -> GroupCommitter:
    writer: GroupCommitter = engine.get_execution_options()[COMMITTER]
    return writer


@contextmanager
def _translated(engine: Engine) -> Iterator[None]:
    try:
        yield
    except (DBAPIError, sqlite3.DatabaseError, psycopg.Error) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        code, state = getattr(cause, "sqlite_errorcode", None), getattr(cause, "sqlstate", None)
        if code in _SQLITE_FULL or state == _POSTGRES_FULL:
            raise StorageFull from error
        if state in _POSTGRES_DAMAGED or (code is not None and code & 0xFF in _SQLITE_DAMAGED):
            _writer_of(engine).damaged = True
            raise DatabaseDamaged(database_name(engine), str(cause)) from error
        if isinstance(cause, (psycopg.OperationalError, psycopg.InterfaceError)):
            _log.warning("the database is not available: %s", cause)
            raise DatabaseUnavailable from error
        raise
    except (PendingRollbackError, PoolExhausted) as error:  # after a lost connection, or while there is none
        raise DatabaseUnavailable from error
    except StatementError as error:
        if isinstance(error.orig, ValueError):  # raised by a column type over a parameter
            raise error.orig from error
        raise
