"""PostgreSQL as the database: its connections, what it must offer, and a lock that allows one server per database."""

from __future__ import annotations

import logging
import secrets
import time
from threading import Lock
from typing import Any

import psycopg
from sqlalchemy import URL, Engine, create_engine, event
from sqlalchemy.pool import ConnectionPoolEntry

from server.domain.errors import DatabaseUnavailable
from server.storage.startup_errors import DatabaseInUse, DatabaseUnreachable, DatabaseUnsuitable
from server.storage.transactions import COMMITTER, GroupCommitter, reading

__all__ = ["connect", "database_identity"]

_log = logging.getLogger(__name__)

_APPLICATION, _LOCK_APPLICATION = "vireid", "vireid lock"
_OLDEST = 140000
_LOCK = int.from_bytes(b"vireid\0\1")
"""Key of the advisory lock, which belongs to the current database."""
_PATIENCE_S = 10.0
"""How long a start waits for the lock: the database notices late that the process before was killed."""
_POLL_S = 0.1

_CONNECTION = {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}
"""Options of libpq: a database that vanishes without a word is noticed within seconds."""
_POOL = {"pool_size": 8, "max_overflow": 24, "pool_timeout": 10, "pool_pre_ping": True}

_DURABLE = "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
_PATIENT = "SELECT set_config('lock_timeout', '30s', false)"
_SERVER_SIDE_KEEPALIVE = (
    "SELECT set_config('tcp_keepalives_idle', '5', false), set_config('tcp_keepalives_interval', '2', false), "
    "set_config('tcp_keepalives_count', '3', false), set_config('idle_session_timeout', '0', false)"
)
_FACTS = (
    "SELECT current_setting('server_version_num')::int, current_setting('server_encoding'), pg_is_in_recovery(), "
    "current_setting('fsync')"
)
_HOLDER = (
    "SELECT host(client_addr), backend_start FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE locktype = "
    "'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND objsubid = 1 "
    "AND (classid::bigint << 32 | objid::bigint) = %s AND granted"
)
_END_OTHERS = (
    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
    "WHERE datname = current_database() AND usename = current_user AND application_name = %s"
)
_OWNER_TABLE = "CREATE TABLE IF NOT EXISTS vireid_server (token text NOT NULL)"
_IDENTITY = (
    "SELECT system_identifier, substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8), "
    "(SELECT oid FROM pg_database WHERE datname = current_database()) FROM pg_control_system()"
)


def connect(url: URL) -> Engine:
    """Take the lock of a database and return an engine for it, whose disposal releases the lock.

    Raises:
        DatabaseInUse: another server holds the lock.
        DatabaseUnreachable: there is no connection.
        DatabaseUnsuitable: its version, encoding or state does not allow its use.
    """
    engine = create_engine(
        url,
        hide_parameters=True,  # values of items stay out of logs
        connect_args={**_CONNECTION, "application_name": _APPLICATION},
        execution_options={COMMITTER: GroupCommitter()},
        **_POOL,
    )
    lock = _ServerLock(engine)
    event.listen(engine, "connect", lock.admit)
    event.listen(engine, "engine_disposed", lambda _: lock.close())
    return engine


def database_identity(engine: Engine) -> str:
    """Return what tells this database from others, also from itself after a point-in-time recovery; "" for SQLite."""
    if engine.dialect.name != "postgresql":
        return ""
    with reading(engine) as connection:
        return "-".join(map(str, connection.exec_driver_sql(_IDENTITY).one()))


class _ServerLock:
    """A session-level advisory lock, held on a connection of its own.

    A server that takes the lock ends the connections of the server before, so that nothing of that one can be
    committed afterwards, and leaves a token. A new connection of the pool is admitted only while the lock is held. If
    its connection was lost, the lock is taken again, unless the token shows that another server has been here since:
    what this server has in memory is out of date then.
    """

    def __init__(self, engine: Engine) -> None:
        self._name = engine.url.render_as_string(hide_password=True)
        self._arguments = engine.dialect.create_connect_args(engine.url)[1]
        self._token = secrets.token_hex(16)
        self._mutex = Lock()
        try:
            self._connection = self._connect()
        except psycopg.Error as error:
            raise DatabaseUnreachable(self._name, str(error)) from None
        try:
            self._take_over()
        except BaseException:
            self.close()
            raise

    def admit(self, connection: Any, _entry: ConnectionPoolEntry) -> None:
        """Prepare a new connection of the pool, and prove that the lock is held while it exists.

        Raises:
            DatabaseUnavailable: another server has taken the lock.
        """
        connection.autocommit = True
        connection.execute(_DURABLE)
        connection.execute(_PATIENT)
        connection.autocommit = False
        with self._mutex:
            try:
                self._connection.execute("SELECT 1")
            except psycopg.Error:
                self._connection.close()
                self._connection = self._connect()
                self._take_again()

    def close(self) -> None:
        """Release the lock."""
        self._connection.close()

    def _connect(self) -> psycopg.Connection[Any]:
        options = {**self._arguments, **_CONNECTION, "application_name": _LOCK_APPLICATION}
        connection: psycopg.Connection[Any] = psycopg.connect(**options, autocommit=True)
        connection.execute(_SERVER_SIDE_KEEPALIVE)
        return connection

    def _take_over(self) -> None:
        _check(self._connection, self._name)
        deadline = time.monotonic() + _PATIENCE_S
        while not self._try():
            if time.monotonic() > deadline:
                host, since = self._connection.execute(_HOLDER, [_LOCK]).fetchone() or (None, None)
                raise DatabaseInUse(self._name, host, since)
            time.sleep(_POLL_S)
        self._connection.execute(_END_OTHERS, [_APPLICATION])
        self._connection.execute(_OWNER_TABLE)
        with self._connection.transaction():
            self._connection.execute("DELETE FROM vireid_server")
            self._connection.execute("INSERT INTO vireid_server VALUES (%s)", [self._token])

    def _take_again(self) -> None:
        if self._try():
            owner = self._connection.execute("SELECT token FROM vireid_server").fetchone()
            if owner == (self._token,):
                _log.info("the connection to the database is back")
                return
        self._connection.close()  # releases the lock for the other server
        raise DatabaseUnavailable("another server has taken over the database; restart this one")

    def _try(self) -> bool:
        row = self._connection.execute("SELECT pg_try_advisory_lock(%s)", [_LOCK]).fetchone()
        return row == (True,)


def _check(connection: psycopg.Connection[Any], name: str) -> None:
    version, encoding, standby, fsync = connection.execute(_FACTS).fetchone() or (0, "", False, "on")
    if version < _OLDEST:
        raise DatabaseUnsuitable(name, f"its version is {version // 10000}, expected 14 or newer")
    if encoding != "UTF8":
        raise DatabaseUnsuitable(name, f"its encoding is {encoding}, expected UTF8: create it with ENCODING 'UTF8'")
    if standby:
        raise DatabaseUnsuitable(name, "it is a standby, which cannot be written to; use its primary")
    if fsync != "on":
        _log.warning("the database runs with fsync=off: a power failure may lose writes and damage it")
