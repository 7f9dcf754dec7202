"""Shared base of the parts of the SQL store: the engine, callbacks after a commit, and room for deletions."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ParamSpec, TypeVar

from sqlalchemy import Connection, Engine, Row, Table

from server.domain.errors import StorageFull
from server.storage import tables
from server.storage.disk_reserve import DiskReserve
from server.storage.encryption import NotDecrypted, encryption_of, place_of
from server.storage.startup_errors import DatabaseDamaged
from server.storage.transactions import after_commit, database_name, scrub

__all__ = ["SqlTransactions"]

_STEP = 16
"""Items deleted in one transaction when the disk is full: what it writes first must fit into the reserve."""

P = ParamSpec("P")
T = TypeVar("T")


class SqlTransactions:
    """Base of the parts of ``SqlStore``; ``engine`` and ``_reserve`` are set by it."""

    engine: Engine
    _reserve: DiskReserve | None

    def scrub(self) -> bool | None:
        return scrub(self.engine)

    def _after_commit(self, on_commit: Callable[P, None] | None, *args: P.args, **kwargs: P.kwargs) -> None:
        if on_commit is not None:
            after_commit(self.engine, partial(on_commit, *args, **kwargs))

    def _with_room(self, delete: Callable[[int | None], T]) -> T:
        """Call ``delete(None)``; if the disk is full, release the reserve and call it with a small step."""
        try:
            return delete(None)
        except StorageFull:
            if self._reserve is None:
                raise
        with self._reserve.released():
            self.scrub()
            return delete(_STEP)

    def _opened(
        self, connection: Connection, table: Table, row: int, key: str | None, sealed: bytes, what: str
    ) -> bytes:
        """Decrypt a record of a table; raises ``DatabaseDamaged`` about ``what``."""
        try:
            return encryption_of(connection).open(key, sealed, place_of(table, row))
        except NotDecrypted:
            raise self._damaged(f"{what} is not the one that was stored") from None

    def _thumbnail(self, connection: Connection, row: Row[Any], item: str) -> bytes | None:
        """Return the thumbnail in a row with ``row``, ``image`` and ``image_key``, if there is one."""
        if row.image is None:
            return None
        what = f"the thumbnail of item {item}"
        return self._opened(connection, tables.thumbnails, row.row, row.image_key, bytes(row.image), what)

    def _damaged(self, finding: str) -> DatabaseDamaged:
        return DatabaseDamaged(database_name(self.engine), finding)
