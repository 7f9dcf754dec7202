"""The store of galleries in a SQL database."""

from __future__ import annotations

import logging
from threading import Event, Thread

from sqlalchemy import Engine
from sqlalchemy.engine import make_url

from server.domain.errors import StorageFull
from server.storage.connect import check, database_file, open_database
from server.storage.directory_lock import DirectoryLock
from server.storage.disk_reserve import DiskReserve
from server.storage.encryption import Encryption
from server.storage.encryption_keys import reencrypt
from server.storage.protocol import Store
from server.storage.sql_deletions import SqlDeletions
from server.storage.sql_galleries import SqlGalleries
from server.storage.sql_items import SqlItems
from server.storage.sql_reembedding import SqlReembedding

__all__ = ["SqlStore", "Store"]

_log = logging.getLogger(__name__)


class SqlStore(SqlGalleries, SqlItems, SqlDeletions, SqlReembedding):
    """A ``Store`` in a SQLite file (``sqlite:///PATH``) or in PostgreSQL.

    The file's directory is created if missing and locked against other processes. ``engine`` also serves the API keys,
    the audit log and the jobs, which are in the same database. Data may be trusted once ``check`` has returned; it also
    finishes deletions that a crash has interrupted, in the background.

    ``encryption`` encrypts vectors and thumbnails; data under another key is encrypted again, in the background.

    Raises:
        DirectoryLocked: another process uses the directory.
        StartupError, StorageFull: see ``open_database``.
        ValueError: a SQLite database in memory.
    """

    def __init__(self, url: str, encryption: Encryption | None = None) -> None:
        file = database_file(make_url(url))
        self._lock = None if file is None else DirectoryLock(file.parent)
        self._reserve = None if file is None else DiskReserve(file.parent / "RESERVE")
        self._closing = Event()
        try:
            self.engine = self._open(url, encryption or Encryption())
        except BaseException:
            self._release()
            raise
        self._background: Thread | None = None

    def check(self) -> None:
        check(self.engine)
        self._background = Thread(target=self._finish, name="store", daemon=True)
        self._background.start()

    def close(self) -> None:
        self._closing.set()
        if self._background is not None:
            self._background.join()
        self.engine.dispose()
        self._release()

    def _open(self, url: str, encryption: Encryption) -> Engine:
        try:
            engine = open_database(url, encryption)
        except StorageFull:
            if self._reserve is None:
                raise
            with self._reserve.released():
                return open_database(url, encryption)
        if self._reserve is not None:
            self._reserve.keep()
        return engine

    def _finish(self) -> None:
        """Finish what an earlier run has begun: deletions, and encryption with a new key."""
        self._finish_deletions()
        try:
            reencrypt(self.engine, self._closing)
        except Exception:
            _log.exception("not all data could be encrypted with the new key; the next start tries again")

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.close()
