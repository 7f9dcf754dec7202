"""Shared base of the parts of the SQL store: the engine, callbacks after a commit, and room for deletions."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import ParamSpec, TypeVar

from sqlalchemy import Engine

from server.domain.errors import StorageFull
from server.storage.disk_reserve import DiskReserve
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

    def scrub(self) -> bool:
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

    def _damaged(self, finding: str) -> DatabaseDamaged:
        return DatabaseDamaged(database_name(self.engine), finding)
