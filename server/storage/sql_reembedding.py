"""Re-embedding in SQL: vectors of another model, collected beside a gallery's own until it switches to them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict

from sqlalchemy import bindparam, func, select

from server.domain.types import Reembedding, Vectors, VectorType
from server.storage import tables
from server.storage.mapping import among_numbers, to_item
from server.storage.protocol import PendingReembedding
from server.storage.sql_rows import (
    DELETE_BY_ROW,
    LISTED,
    change_gallery,
    find_gallery,
    insert_vectors,
    lacks_vector,
    unused_vectors,
)
from server.storage.sql_transactions import SqlTransactions
from server.storage.transactions import reading, writing

__all__ = ["SqlReembedding"]

_BATCH = 2000
"""Vectors that are removed in one transaction: others write between two."""

_galleries, _items, _thumbnails = tables.galleries.c, tables.items.c, tables.thumbnails.c


class SqlReembedding(SqlTransactions):
    """The part of ``SqlStore`` that re-embeds galleries; see ``Store``."""

    def begin_reembedding(self, name: str, reembedding: Reembedding) -> None:
        if (current := self.reembeddings().get(name)) == reembedding:
            return
        if current is not None:
            self.end_reembedding(name)
        with writing(self.engine) as connection:
            number = find_gallery(connection, name, lock=True).number
            change_gallery(connection, number, {"renewal": asdict(reembedding)})

    def reembeddings(self) -> dict[str, Reembedding]:
        with reading(self.engine) as connection:
            found = connection.execute(LISTED.where(_galleries.renewal.is_not(None)))
            return {row.name: Reembedding(**row.renewal) for row in found}

    def count_without_thumbnail(self, name: str) -> int:
        count = select(func.count()).select_from(tables.items.outerjoin(tables.thumbnails))
        with reading(self.engine) as connection:
            number = find_gallery(connection, name).number
            found = connection.scalar(count.where(_items.gallery == number, _thumbnails.row.is_(None)))
        return found or 0

    def pending_reembedding(self, name: str, *, limit: int, after: int = 0) -> list[PendingReembedding]:
        with reading(self.engine) as connection:
            gallery = find_gallery(connection, name)
            query = (
                select(tables.items, _thumbnails.image, _thumbnails.image_key)
                .where(_items.gallery == gallery.number, _items.row > after, lacks_vector(unused_vectors(gallery)))
                .outerjoin(tables.thumbnails, _thumbnails.row == _items.row)
                .order_by(_items.row)
                .limit(limit)
            )
            return [
                PendingReembedding(row.row, to_item(row), self._thumbnail(connection, row, row.id))
                for row in connection.execute(query).all()
            ]

    def store_reembedded(self, name: str, vectors: Mapping[int, Vectors]) -> None:
        with writing(self.engine) as connection:
            gallery = find_gallery(connection, name, lock=True)
            table, dtype = unused_vectors(gallery), VectorType(gallery.vector_type).dtype
            lacking = select(_items.row).where(
                _items.gallery == gallery.number, _items.row.in_(among_numbers(bindparam("rows"))), lacks_vector(table)
            )
            rows = connection.scalars(lacking, {"rows": json.dumps(list(vectors))}).all()
            insert_vectors(connection, table, [(row, vectors[row].astype(dtype).tobytes()) for row in rows])

    def switch_model(self, name: str, on_commit: Callable[[], None] | None = None) -> None:
        with writing(self.engine) as connection:
            gallery = find_gallery(connection, name, lock=True)
            query = select(_items.row).where(_items.gallery == gallery.number, lacks_vector(unused_vectors(gallery)))
            if gallery.renewal is None or connection.execute(query.limit(1)).one_or_none():
                raise ValueError(f"gallery {name} has items without a vector of the other model")
            reembedding = Reembedding(**gallery.renewal)
            values = {
                "model": reembedding.model,
                "fingerprint": reembedding.fingerprint,
                "dimension": reembedding.dimension,
                "uses_other_vectors": not gallery.uses_other_vectors,
            }
            change_gallery(connection, gallery.number, values)
            self._after_commit(on_commit)

    def end_reembedding(self, name: str) -> None:
        last = 0
        while True:
            with writing(self.engine, erases=True) as connection:
                gallery = find_gallery(connection, name, lock=True)
                table = unused_vectors(gallery)
                query = select(_items.row).join(table, table.c.row == _items.row).order_by(_items.row).limit(_BATCH)
                query = query.where(_items.gallery == gallery.number, _items.row > last)
                rows = connection.scalars(query).all()
                if not rows:
                    change_gallery(connection, gallery.number, {"renewal": None})
                    return
                connection.execute(DELETE_BY_ROW[table], {"rows": json.dumps(list(rows))})
                last = rows[-1]
