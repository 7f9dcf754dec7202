"""Transactions: readers see one moment, writers share commits, and what is committed is on the disk."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from threading import Event, Lock

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from server.errors import StorageFull
from server.gallery.refused import DatabaseDamaged

__all__ = ["WRITER", "WRITES", "Writer", "after_commit", "database_name", "reading", "scrub", "writing"]

_log = logging.getLogger(__name__)

WRITER = "vireid_writer"
"""Execution option of an engine: its ``Writer``."""
WRITES = "vireid_writes"
"""Execution option of a connection whose transaction will write."""

_LARGEST_GROUP = 64
"""Writes that share a commit at most: the first of them waits for the last."""

_SQLITE_FULL = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE}
_SQLITE_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_POSTGRES_FULL = "53100"


class _Member:
    """One write of a group. ``error`` is its own; that of the group counts before it."""

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
        """Commit, if nothing has failed all of it."""
        with self.connection:
            try:
                if self.error is None and self.members:
                    self.transaction.commit()
            except BaseException as error:
                self.error = error
            if self.error is not None:
                self.connection.invalidate()  # whatever state it is in, nothing of it remains


class Writer:
    """Lets the writers of an engine in one after the other, and commits for many of them at once.

    Each write is a savepoint, so that one that fails fails alone. The last one that nobody queues behind commits for
    all before it, who have been waiting for that: while the disk works on a commit the next group comes together. A
    commit that fails, and an error that takes the whole transaction along (a full disk), fails every write of the
    group.
    """

    def __init__(self) -> None:
        self.turn = Lock()
        self.unscrubbed = False
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
    """A transaction that sees the database as it was at its first statement.

    Raises:
        DatabaseDamaged: a page that was read is broken.
    """
    with _translated(engine), engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            connection.execution_options(isolation_level="REPEATABLE READ")
        with connection.begin():
            yield connection
    if _writer_of(engine).unscrubbed:  # perhaps for this reader
        scrub(engine, wait=False)


@contextmanager
def writing(engine: Engine, *, erases: bool = False) -> Iterator[Connection]:
    """A write: on the disk when left, undone on any exception. One at a time, several to a commit.

    ``erases``: no file holds any more what was deleted when this is left, unless a reader still needs it; then the last
    one that does sees to it.

    Raises:
        StorageFull: no room on the disk; nothing was stored.
        DatabaseDamaged: a page that was read is broken; nothing was stored.
    """
    with _translated(engine), _writer_of(engine).write(engine, erases=erases) as connection:
        yield connection


def after_commit(engine: Engine, callback: Callable[[], None]) -> None:
    """Within ``writing``: have something done when the write is on the disk and before it is left.

    Callbacks run in the order of the writes, those of no two writes at the same time; one that raises fails its write
    for the caller, though it is stored.
    """
    _writer_of(engine).after_commit(callback)


def scrub(engine: Engine, *, wait: bool = True) -> bool:
    """Empty SQLite's write-ahead log into the database, so that no file holds what was deleted any more.

    False when it must be tried again: a reader still uses the log, the disk has no room, or, without ``wait``, somebody
    writes.
    """
    writer = _writer_of(engine)
    if not writer.turn.acquire(blocking=wait):
        return False
    try:
        writer.unscrubbed = not _empty_log(engine)
        return not writer.unscrubbed
    finally:
        writer.turn.release()


def database_name(engine: Engine) -> str:
    """How messages call the database: its file, or its URL without the password."""
    return engine.url.database or engine.url.render_as_string(hide_password=True)


@contextmanager
def _savepoint(group: _Group) -> Iterator[None]:
    """Undo what failed. Where even that fails, the transaction is lost, and the group with it."""
    try:
        group.connection.exec_driver_sql("SAVEPOINT member")
        yield
        group.connection.exec_driver_sql("RELEASE SAVEPOINT member")
    except BaseException as error:
        try:
            group.connection.exec_driver_sql("ROLLBACK TO SAVEPOINT member")
            group.connection.exec_driver_sql("RELEASE SAVEPOINT member")
        except DBAPIError:
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
    # A connection of its own, because this one must not wait for readers as the others do.
    with closing(sqlite3.connect(engine.url.database or "", timeout=0)) as connection:
        try:
            (busy, _, _) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except sqlite3.OperationalError as error:
            _log.warning("the write-ahead log could not be emptied yet: %s", error)
            return False
    return not busy


def _writer_of(engine: Engine) -> Writer:
    writer: Writer = engine.get_execution_options()[WRITER]
    return writer


@contextmanager
def _translated(engine: Engine) -> Iterator[None]:
    try:
        yield
    except (DBAPIError, sqlite3.DatabaseError) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        code = getattr(cause, "sqlite_errorcode", None)
        if code in _SQLITE_FULL or getattr(cause, "sqlstate", None) == _POSTGRES_FULL:
            raise StorageFull from error
        if code is not None and code & 0xFF in _SQLITE_DAMAGED:
            raise DatabaseDamaged(database_name(engine), str(cause)) from error
        raise
