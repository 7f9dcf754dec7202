"""Opens the database: only one that is there and vireid's, of a known version, brought to this program's."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry

from server.gallery.database import WRITER, WRITES, Writer, database_name, reading, scrub, writing
from server.gallery.refused import DatabaseDamaged, DatabaseMissing, DatabaseTooNew

__all__ = ["check", "database_file", "open_database"]

_PRAGMAS = (
    "journal_mode=WAL",
    "synchronous=FULL",  # NORMAL may lose the last commits when the power goes
    "foreign_keys=ON",
    "secure_delete=ON",  # deleted bytes are overwritten, not only unlinked
    "busy_timeout=10000",
    "wal_autocheckpoint=256",  # 4 MiB, which ``Reserve`` has room for when the disk is full
)
_UNFINISHED_PRAGMAS = (
    "page_size=16384",  # a vector and a thumbnail fit a page: a third faster and smaller
    "journal_mode=MEMORY",
    "synchronous=OFF",  # what is cut off is made anew
)

_COMPANIONS = ("-wal", "-shm", "-journal")
_BELONGINGS = ("index", "jobs", "RESERVE")
"""What else the server keeps in its directory, besides the database, its companions and LOCK."""


def open_database(url: str) -> Engine:
    """Connect, and bring the schema to this program's version. Works for SQLite files and PostgreSQL.

    A SQLite file that is not there is made, whole or not at all, unless something in its directory shows that there was
    one. What is read here is little; ``check`` reads all.

    Raises:
        DatabaseDamaged: SQLite cannot read the file, or it is not one of vireid's.
        DatabaseMissing: it is gone, and what belongs to it is not.
        DatabaseTooNew: its schema version is not known here; nothing was changed.
        StorageFull: there is no room to start in.
    """
    parsed = make_url(url)
    file = database_file(parsed)
    if file is not None and not file.exists():
        _create(parsed, file)
    elif file is not None and not file.stat().st_size:
        raise DatabaseDamaged(str(file), "it is empty")
    with _opened(parsed, _PRAGMAS) as engine:
        _migrate(engine, new=file is None)
        scrub(engine)
    return engine


def database_file(url: URL) -> Path | None:
    """The file of a SQLite database; None for another kind.

    Raises:
        ValueError: a SQLite database in memory.
    """
    if url.get_backend_name() != "sqlite":
        return None
    if url.database in (None, "", ":memory:"):
        raise ValueError(f"expected sqlite:///PATH, found {url}: a database in memory does not last")
    return Path(url.database)


def check(engine: Engine) -> None:
    """Look at every page of a SQLite file. Takes seconds a gigabyte, beside whatever else reads and writes.

    Raises:
        DatabaseDamaged: SQLite finds it broken.
    """
    if engine.dialect.name != "sqlite":
        return
    with reading(engine) as connection:
        finding = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
    if finding != "ok":
        raise DatabaseDamaged(database_name(engine), str(finding))


def _create(url: URL, file: Path) -> None:
    """Make the file under another name and then give it its own: what has that name was finished."""
    found = [path.name for path in (_beside(file, suffix) for suffix in _COMPANIONS) if path.exists()]
    if found := found + [name for name in _BELONGINGS if (file.parent / name).exists()]:
        raise DatabaseMissing(file, found)
    unfinished = _beside(file, ".new")
    unfinished.unlink(missing_ok=True)
    with _opened(url.set(database=str(unfinished)), _UNFINISHED_PRAGMAS) as engine:
        _migrate(engine, new=True)
    engine.dispose()
    _sync(unfinished)
    unfinished.rename(file)
    _sync(file.parent)


def _sync(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _beside(file: Path, suffix: str) -> Path:
    return file.with_name(file.name + suffix)


@contextmanager
def _opened(url: URL, pragmas: Sequence[str]) -> Iterator[Engine]:
    """An engine with a writer and, for SQLite, settings; disposed of when something fails."""
    engine = create_engine(url, pool_size=8, max_overflow=-1, execution_options={WRITER: Writer()})
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", partial(_set_pragmas, pragmas))
        event.listen(engine, "begin", _begin)
    try:
        yield engine
    except BaseException:
        engine.dispose()
        raise


def _set_pragmas(pragmas: Sequence[str], connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    # pysqlite would begin transactions by itself, and only before writes: reads would see several states.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in pragmas:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get(WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _migrate(engine: Engine, *, new: bool) -> None:
    config = Config()
    config.set_main_option("script_location", "server.gallery:migrations")
    scripts = ScriptDirectory.from_config(config)
    known = {script.revision for script in scripts.walk_revisions()}
    newest = scripts.get_current_head() or ""
    with reading(engine) as connection:
        current = MigrationContext.configure(connection).get_current_revision()
    if current == newest:
        return
    if current is None and not new:
        raise DatabaseDamaged(database_name(engine), "it has no tables of vireid")
    if current is not None and current not in known:
        raise DatabaseTooNew(database_name(engine), current, newest)
    with writing(engine) as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
