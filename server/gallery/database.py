"""The database connection: opened only when sound and of a known version, written by one at a time, made to last."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from threading import Lock

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import ConnectionPoolEntry

from server.errors import StorageFull
from server.gallery.refused import DatabaseDamaged, DatabaseTooNew

__all__ = ["open_database", "reading", "scrub", "writing"]

_log = logging.getLogger(__name__)

_WRITER = "vireid_writer"
"""Execution option of the engine: the lock of its one writer."""
_WRITES = "vireid_writes"
"""Execution option of a connection whose transaction will write."""

_PRAGMAS = (
    "page_size=16384",  # a vector and a thumbnail fit a page: a third faster and smaller; counts at creation only
    "journal_mode=WAL",
    "synchronous=FULL",  # NORMAL may lose the last commits when the power goes
    "foreign_keys=ON",
    "secure_delete=ON",  # deleted bytes are overwritten, not only unlinked
    "busy_timeout=10000",
)

_SQLITE_FULL = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE}
_SQLITE_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_POSTGRES_FULL = "53100"


def open_database(url: str) -> Engine:
    """Connect, check, and bring the schema to this program's version. Works for SQLite files and PostgreSQL.

    Raises:
        DatabaseDamaged: SQLite finds the file broken.
        DatabaseTooNew: its schema version is not known here; nothing was changed.
        StorageFull: there is no room to start in.
    """
    engine = create_engine(url, pool_size=8, max_overflow=-1, execution_options={_WRITER: Lock()})
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _set_pragmas)
        event.listen(engine, "begin", _begin)
    try:
        _check(engine)
        _migrate(engine)
        scrub(engine)
    except BaseException:
        engine.dispose()
        raise
    return engine


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


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A transaction that writes: committed and on the disk when left, rolled back on any exception. One at a time.

    Raises:
        StorageFull: no room on the disk; nothing was stored.
        DatabaseDamaged: a page that was read is broken; nothing was stored.
    """
    with engine.get_execution_options()[_WRITER], _translated(engine), engine.connect() as connection:
        connection.execution_options(**{_WRITES: True})
        with connection.begin():
            yield connection


def scrub(engine: Engine) -> bool:
    """Empty SQLite's write-ahead log into the database, so that no file holds what was deleted any more.

    False when it must be tried again: a reader still uses the log, or the disk has no room.
    """
    if engine.dialect.name != "sqlite":
        return True
    # A connection of its own, because this one must not wait for readers as the others do.
    with (
        engine.get_execution_options()[_WRITER],
        closing(sqlite3.connect(engine.url.database or "", timeout=0)) as connection,
    ):
        try:
            (busy, _, _) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except sqlite3.OperationalError as error:
            _log.warning("the write-ahead log could not be emptied yet: %s", error)
            return False
    return not busy


def _set_pragmas(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    # pysqlite would begin transactions by itself, and only before writes: reads would see several states.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in _PRAGMAS:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _check(engine: Engine) -> None:
    if engine.dialect.name != "sqlite":
        return
    with reading(engine) as connection:
        finding = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
    if finding != "ok":
        raise DatabaseDamaged(_name(engine), str(finding))


def _migrate(engine: Engine) -> None:
    config = Config()
    config.set_main_option("script_location", "server.gallery:migrations")
    scripts = ScriptDirectory.from_config(config)
    known = {script.revision for script in scripts.walk_revisions()}
    newest = scripts.get_current_head() or ""
    with writing(engine) as connection:
        current = MigrationContext.configure(connection).get_current_revision()
        if current == newest:
            return
        if current is not None and current not in known:
            raise DatabaseTooNew(_name(engine), current, newest)
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


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
            raise DatabaseDamaged(_name(engine), str(cause)) from error
        raise


def _name(engine: Engine) -> str:
    return engine.url.database or engine.url.render_as_string(hide_password=True)
