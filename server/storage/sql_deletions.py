"""Deletion of items in SQL, and receipts of erasures."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy import Connection, Row, bindparam, func, insert, select, tuple_

from server.domain.errors import ErasureNotFound
from server.domain.types import Erasure, Filter
from server.storage import tables
from server.storage.mapping import among, among_numbers, to_erasure
from server.storage.protocol import DeleteResult
from server.storage.sql_rows import (
    ITEM_ROW,
    VECTOR_TABLES,
    advance_sequence,
    delete_rows,
    filtered_items,
    find_gallery,
    find_item,
    items_with_ids,
)
from server.storage.sql_transactions import SqlTransactions
from server.storage.transactions import reading, writing

__all__ = ["SqlDeletions"]

_items, _erasures = tables.items.c, tables.erasures.c

_ORPHANS = [
    select(func.count()).select_from(part).where(part.c.row.not_in(select(_items.row)))
    for part in (*VECTOR_TABLES, tables.thumbnails)
]
_BY_ROW = select(_items.id, _items.row).where(_items.row.in_(among_numbers(bindparam("rows")))).order_by(_items.id)
_STORED_BEFORE = (
    select(_items.id, _items.row)
    .where(_items.gallery == bindparam("gallery"), _items.stored_at < bindparam("time"))
    .order_by(_items.id)
)

Selection = Callable[[Connection, int], Sequence[Any]]
"""Returns the rows of items of a gallery, given by its number."""


class SqlDeletions(SqlTransactions):
    """The part of ``SqlStore`` that deletes items and keeps receipts; see ``Store``."""

    def delete_item(
        self, name: str, item: str, on_commit: Callable[[DeleteResult], None] | None = None
    ) -> DeleteResult:
        def select_item(connection: Connection, _: int) -> Sequence[Any]:
            return [find_item(connection, name, item, ITEM_ROW)]

        return self._with_room(partial(self._delete, name, select_item, on_commit))

    def delete_items(
        self, name: str, where: Filter, on_commit: Callable[[DeleteResult], None] | None = None
    ) -> DeleteResult:
        def select_matching(connection: Connection, gallery: int) -> Sequence[Any]:
            return filtered_items(connection, gallery, where)

        return self._with_room(partial(self._delete, name, select_matching, on_commit))

    def delete_stored_before(
        self, name: str, time: datetime, on_commit: Callable[[DeleteResult], None] | None = None
    ) -> DeleteResult:
        def select_expired(connection: Connection, gallery: int) -> Sequence[Any]:
            return connection.execute(_STORED_BEFORE, {"gallery": gallery, "time": time}).all()

        return self._with_room(partial(self._delete, name, select_expired, on_commit))

    def count_remaining(self, name: str, ids: Collection[str]) -> int:
        with reading(self.engine) as connection:
            found = len(items_with_ids(connection, find_gallery(connection, name).number, ids))
            return found + sum(int(connection.execute(query).scalar_one()) for query in _ORPHANS)

    def record_erasure(self, erasure: Erasure) -> None:
        with writing(self.engine) as connection:
            connection.execute(
                insert(tables.erasures).values(
                    id=erasure.id,
                    gallery=erasure.gallery,
                    at=erasure.at,
                    key_id=erasure.key_id,
                    detail=dict(erasure.detail),
                )
            )

    def erasure(self, id: str) -> Erasure:
        with reading(self.engine) as connection:
            return to_erasure(_find_erasure(connection, id))

    def erasures(
        self, *, limit: int, after: str | None = None, galleries: Collection[str] | None = None
    ) -> list[Erasure]:
        query = select(tables.erasures).order_by(_erasures.at.desc(), _erasures.id.desc()).limit(limit)
        with reading(self.engine) as connection:
            if after is not None:
                last = _find_erasure(connection, after)
                query = query.where(tuple_(_erasures.at, _erasures.id) < (last.at, last.id))
            if galleries is not None:
                query = query.where(_erasures.gallery.in_(among(galleries)))
            return [to_erasure(row) for row in connection.execute(query)]

    def _delete(
        self, name: str, selection: Selection, on_commit: Callable[[DeleteResult], None] | None, step: int | None
    ) -> DeleteResult:
        """Delete the selected items: all in one transaction, or ``step`` in each."""
        if step is None:
            with writing(self.engine, erases=True) as connection:
                gallery = find_gallery(connection, name, lock=True)
                return self._delete_found(connection, gallery, selection(connection, gallery.number), on_commit)
        with reading(self.engine) as connection:
            gallery = find_gallery(connection, name)
            rows = [row.row for row in selection(connection, gallery.number)]
        result = DeleteResult([], 0, 0, gallery.sequence)
        for start in range(0, len(rows), step):
            with writing(self.engine, erases=True) as connection:
                gallery = find_gallery(connection, name, lock=True)
                found = connection.execute(_BY_ROW, {"rows": json.dumps(rows[start : start + step])}).all()
                more = self._delete_found(connection, gallery, found, on_commit)
            result = DeleteResult(
                result.ids + more.ids,
                result.vectors + more.vectors,
                result.thumbnails + more.thumbnails,
                more.sequence,
            )
        return result

    def _delete_found(
        self,
        connection: Connection,
        gallery: Row[Any],
        found: Sequence[Any],
        on_commit: Callable[[DeleteResult], None] | None,
    ) -> DeleteResult:
        if not found:
            return DeleteResult([], 0, 0, gallery.sequence)
        vectors, thumbnails = delete_rows(connection, [row.row for row in found])
        sequence = advance_sequence(connection, gallery, -len(found))
        result = DeleteResult([row.id for row in found], vectors, thumbnails, sequence)
        self._after_commit(on_commit, result)
        return result


def _find_erasure(connection: Connection, id: str) -> Row[Any]:
    row = connection.execute(select(tables.erasures).where(_erasures.id == id)).one_or_none()
    if row is None:
        raise ErasureNotFound(id)
    return row
