"""Opening of the database: creates a new one, migrates an older one, and refuses any other."""

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

from server.storage.encryption import ENCRYPTION, Encryption
from server.storage.encryption_keys import accept_keys
from server.storage.files import publish_file
from server.storage.postgresql import connect
from server.storage.startup_errors import DatabaseDamaged, DatabaseMissing, DatabaseTooNew
from server.storage.transactions import COMMITTER, WRITES, GroupCommitter, database_name, reading, scrub, writing

__all__ = ["check", "database_file", "open_database"]

_PRAGMAS = (
    "temp_store=MEMORY",  # of statement journals, which are small: there may be no folder for temporary files
    "journal_mode=WAL",
    "synchronous=FULL",  # NORMAL may lose the last commits on a power failure
    "foreign_keys=ON",
    "secure_delete=ON",  # deleted bytes are overwritten, not only unlinked
    "busy_timeout=10000",
    "wal_autocheckpoint=256",  # 4 MiB, for which ``DiskReserve`` has room on a full disk
)
_UNFINISHED_PRAGMAS = (
    "page_size=16384",  # a vector and a thumbnail fit a page: a third faster and smaller
    "journal_mode=MEMORY",
    "synchronous=OFF",  # an interrupted file is created again
)

_COMPANIONS = ("-wal", "-shm", "-journal")
_BELONGINGS = ("index", "jobs", "RESERVE")
"""Files of the server that exist only beside a database."""


def open_database(url: str, encryption: Encryption) -> Engine:
    """Connect, and migrate the schema to this program's version. Works for SQLite files and PostgreSQL.

    A missing SQLite file is created, completely or not at all, unless its directory shows that there was one. This
    reads little; ``check`` reads everything.

    Raises:
        DatabaseDamaged: SQLite cannot read the file, or vireid did not create it.
        DatabaseMissing: the file is missing, but files that belong to it exist.
        DatabaseTooNew: its schema version is unknown; nothing was changed.
        DatabaseInUse, DatabaseUnreachable, DatabaseUnsuitable: see ``postgresql.connect``.
        KeysRejected: a key that encrypts its data is missing or another one.
        StorageFull: the disk has no room for the start.
    """
    parsed = make_url(url)
    file = database_file(parsed)
    if file is not None and not file.exists():
        _create(parsed, file, encryption)
    elif file is not None and not file.stat().st_size:
        raise DatabaseDamaged(str(file), "it is empty")
    with _opened(parsed, _PRAGMAS, encryption) as engine:
        _migrate(engine, new=file is None)
        accept_keys(engine, encryption)
        scrub(engine)
    return engine


def database_file(url: URL) -> Path | None:
    """Return the file of a SQLite database, None for another database.

    Raises:
        ValueError: a SQLite database in memory.
    """
    if url.get_backend_name() != "sqlite":
        return None
    if url.database in (None, "", ":memory:"):
        raise ValueError(f"expected sqlite:///PATH, found {url}: a database in memory does not last")
    return Path(url.database)


def check(engine: Engine) -> None:
    """Verify every page of a SQLite file. Takes seconds per gigabyte; others may read and write meanwhile.

    Raises:
        DatabaseDamaged: SQLite finds it broken.
    """
    if engine.dialect.name != "sqlite":
        return
    with reading(engine) as connection:
        finding = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
    if finding != "ok":
        raise DatabaseDamaged(database_name(engine), str(finding))


def _create(url: URL, file: Path, encryption: Encryption) -> None:
    """Create the file under another name and rename it: a file of that name is always complete."""
    found = [path.name for path in (_beside(file, suffix) for suffix in _COMPANIONS) if path.exists()]
    if found := found + [name for name in _BELONGINGS if (file.parent / name).exists()]:
        raise DatabaseMissing(file, found)
    unfinished = _beside(file, ".new")
    unfinished.unlink(missing_ok=True)
    with _opened(url.set(database=str(unfinished)), _UNFINISHED_PRAGMAS, encryption) as engine:
        _migrate(engine, new=True)
    engine.dispose()
    with unfinished.open("rb") as written:
        os.fsync(written.fileno())
    publish_file(unfinished, file)


def _beside(file: Path, suffix: str) -> Path:
    return file.with_name(file.name + suffix)


@contextmanager
def _opened(url: URL, pragmas: Sequence[str], encryption: Encryption) -> Iterator[Engine]:
    """Create an engine with a group committer and, for SQLite, pragmas; dispose of it if the block fails."""
    engine = _connect_sqlite(url, pragmas) if url.get_backend_name() == "sqlite" else connect(url)
    engine.update_execution_options(**{ENCRYPTION: encryption})
    try:
        yield engine
    except BaseException:
        engine.dispose()
        raise


def _connect_sqlite(url: URL, pragmas: Sequence[str]) -> Engine:
    engine = create_engine(url, pool_size=8, max_overflow=-1, execution_options={COMMITTER: GroupCommitter()})
    event.listen(engine, "connect", partial(_set_pragmas, pragmas))
    event.listen(engine, "begin", _begin)
    return engine


def _set_pragmas(pragmas: Sequence[str], connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    # pysqlite begins transactions itself, and only before writes, so reads would see several states.
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
    config.set_main_option("script_location", "server.storage:migrations")
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
