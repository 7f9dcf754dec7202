"""Who searched or changed what, when. Never the images."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Engine, insert, select

from server.errors import StorageFull
from server.gallery import tables
from server.gallery.database import reading, writing
from server.gallery.moments import from_micros, to_micros

__all__ = ["Audit", "Entry"]

_log = logging.getLogger(__name__)

_INSERT = insert(tables.audit)


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that was done. ``number`` rises with time; ``key_id`` is None where no key was needed."""

    number: int
    at: datetime
    key_id: str | None
    action: str
    gallery: str | None
    detail: Mapping[str, object]


class Audit:
    """The audit trail in the database of an engine (``SqlStore.engine``). Thread-safe; entries are only ever added."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def record(self, key_id: str | None, action: str, gallery: str | None, detail: Mapping[str, object]) -> None:
        """Add an entry; it is on the disk when this returns. ``detail`` is JSON.

        What is recorded has been done, so a full disk must not make it look refused: the log has the entry then, but
        for its detail, in which people may be named.
        """
        moment = to_micros(datetime.now(UTC))
        entry = {"at": moment, "key_id": key_id, "action": action, "gallery": gallery, "detail": dict(detail)}
        try:
            with writing(self._engine) as connection:
                connection.execute(_INSERT, entry)
        except StorageFull:
            _log.error("the audit trail has no room for %s by key %s on gallery %s", action, key_id, gallery)

    def list(self, limit: int, after: int | None = None) -> list[Entry]:
        """At most ``limit`` entries, newest first, those that follow entry ``after`` in that order."""
        query = select(tables.audit).order_by(tables.audit.c.number.desc()).limit(limit)
        if after is not None:
            query = query.where(tables.audit.c.number < after)
        with reading(self._engine) as connection:
            return [
                Entry(row.number, from_micros(row.at), row.key_id, row.action, row.gallery, row.detail)
                for row in connection.execute(query)
            ]
