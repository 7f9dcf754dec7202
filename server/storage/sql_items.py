"""Items with their vectors and thumbnails in SQL."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
from sqlalchemy import Connection, Row, select, update

from server.domain.types import Filter, Gallery, Item, NewItem, Vectors, VectorType, WriteStatus
from server.storage import tables
from server.storage.bulk_read import Rows, changed_items, rows_of
from server.storage.mapping import to_columns, to_gallery, to_item
from server.storage.protocol import ITEM_CHANGES, ItemChunk, LoadedGallery, PutResult, check_changes
from server.storage.sql_rows import (
    ITEM_METADATA,
    ITEM_ROW,
    MATCHING_ITEM,
    PAGE,
    VECTOR_TABLES,
    advance_sequence,
    delete_rows,
    filtered_items,
    find_gallery,
    find_item,
    insert_items,
    items_with_ids,
    own_vectors,
    unused_vectors,
)
from server.storage.sql_transactions import SqlTransactions
from server.storage.transactions import reading, writing

__all__ = ["SqlItems"]

_items, _thumbnails = tables.items.c, tables.thumbnails.c

_THUMBNAIL = select(tables.thumbnails).join(tables.items).where(*MATCHING_ITEM)
_VECTOR = {
    table: select(tables.items, table.c.vector, table.c.crc32, table.c.vector_key)
    .outerjoin(table, table.c.row == _items.row)
    .where(*MATCHING_ITEM)
    for table in VECTOR_TABLES
}


class SqlItems(SqlTransactions):
    """The part of ``SqlStore`` that holds items; see ``Store``."""

    def put(
        self, name: str, items: Sequence[NewItem], on_commit: Callable[[PutResult], None] | None = None
    ) -> PutResult:
        last = {new.item.id: new for new in items}
        with writing(self.engine) as connection:
            gallery = find_gallery(connection, name, lock=True)
            old = {row.id: row.row for row in items_with_ids(connection, gallery.number, last)}
            delete_rows(connection, list(old.values()))
            sequence = advance_sequence(connection, gallery, len(last) - len(old))
            rows = insert_items(connection, gallery, sequence, list(last.values()))
            placed = np.array([rows[new.item.id] for new in items], np.int64)
            result = PutResult(_statuses(items, old.keys()), placed, sequence)
            self._after_commit(on_commit, result)
        return result

    def item(self, name: str, item: str) -> Item:
        with reading(self.engine) as connection:
            return to_item(find_item(connection, name, item, ITEM_METADATA))

    def items(self, name: str, where: Filter, *, limit: int, after: str | None = None) -> list[Item]:
        with reading(self.engine) as connection:
            found = filtered_items(connection, find_gallery(connection, name).number, where, limit, after)
            return [to_item(row) for row in found]

    def items_by_id(self, name: str, ids: Collection[str]) -> dict[str, Item]:
        with reading(self.engine) as connection:
            found = items_with_ids(connection, find_gallery(connection, name).number, ids)
        return {row.id: to_item(row) for row in found}

    def content_hashes(self, name: str, ids: Collection[str]) -> dict[str, str]:
        with reading(self.engine) as connection:
            found = items_with_ids(connection, find_gallery(connection, name).number, ids)
        return {row.id: row.content for row in found if row.content is not None}

    def update_item(
        self, name: str, item: str, changes: Mapping[str, object], on_commit: Callable[[Item, int], None] | None = None
    ) -> tuple[Item, int]:
        check_changes(changes, ITEM_CHANGES)
        with writing(self.engine) as connection:
            gallery = find_gallery(connection, name, lock=True)
            row = find_item(connection, name, item, ITEM_ROW).row
            sequence = advance_sequence(connection, gallery, 0)
            values = to_columns(changes) | {"sequence": sequence}
            connection.execute(update(tables.items).where(_items.row == row).values(**values))
            updated = to_item(find_item(connection, name, item, ITEM_METADATA))
            self._after_commit(on_commit, updated, sequence)
        return updated, sequence

    def thumbnail(self, name: str, item: str) -> bytes:
        with reading(self.engine) as connection:
            row = find_item(connection, name, item, _THUMBNAIL)
            if row.crc32 is not None and zlib.crc32(row.image, row.row) != row.crc32:
                raise self._damaged(f"the thumbnail of item {item} is not the one that was stored")
            return self._thumbnail(connection, row, item) or b""

    def vector(self, name: str, item: str) -> tuple[Item, Vectors]:
        with reading(self.engine) as connection:
            gallery = find_gallery(connection, name)
            row = find_item(connection, name, item, _VECTOR[own_vectors(gallery)])
            return to_item(row), self._verified_vector(connection, row, gallery)

    @contextmanager
    def dump(self, name: str) -> Iterator[tuple[Gallery, Iterator[NewItem]]]:
        with reading(self.engine) as connection:
            gallery = find_gallery(connection, name)
            yield to_gallery(gallery), self._new_items(connection, gallery)

    @contextmanager
    def load(self, name: str, since: int = 0, *, reembedded: bool = False) -> Iterator[LoadedGallery]:
        with reading(self.engine) as connection:
            gallery = find_gallery(connection, name)
            chunks = self._chunks(connection, gallery, since, reembedded)
            yield LoadedGallery(gallery.sequence, chunks, partial(self._rows, connection, gallery))

    def _new_items(self, connection: Connection, gallery: Row[Any]) -> Iterator[NewItem]:
        vectors = own_vectors(gallery)
        query = (
            select(
                tables.items,
                vectors.c.vector,
                vectors.c.crc32,
                vectors.c.vector_key,
                _thumbnails.image,
                _thumbnails.image_key,
            )
            .outerjoin(vectors, vectors.c.row == _items.row)
            .outerjoin(tables.thumbnails, _thumbnails.row == _items.row)
            .where(_items.gallery == gallery.number)
            .order_by(_items.row)
        )
        count = 0
        with connection.execute(query, execution_options={"yield_per": PAGE}) as rows:
            for row in rows:
                vector = self._verified_vector(connection, row, gallery)
                yield NewItem(to_item(row), vector, self._thumbnail(connection, row, row.id), row.stored_at)
                count += 1
        self._check_count(gallery, count)

    def _verified_vector(self, connection: Connection, row: Row[Any], gallery: Row[Any]) -> Vectors:
        what = f"the vector of item {row.id}"
        if row.vector is None or zlib.crc32(row.vector) != row.crc32:
            raise self._damaged(f"{what} is not the one that was stored")
        vector = self._opened(connection, own_vectors(gallery), row.row, row.vector_key, row.vector, what)
        return np.frombuffer(vector, VectorType(gallery.vector_type).dtype).astype(np.float32)

    def _chunks(self, connection: Connection, gallery: Row[Any], since: int, reembedded: bool) -> Iterator[ItemChunk]:
        table, dimension = own_vectors(gallery), gallery.dimension
        if reembedded:
            table, dimension = unused_vectors(gallery), gallery.renewal["dimension"]
        count = 0
        for chunk in changed_items(connection, gallery, since, table, dimension, self._damaged):
            count += len(chunk.items)
            yield chunk
        if not since:
            self._check_count(gallery, count)

    def _rows(self, connection: Connection, gallery: Row[Any]) -> Rows:
        rows = rows_of(connection, gallery)
        self._check_count(gallery, len(rows))
        return rows

    def _check_count(self, gallery: Row[Any], count: int) -> None:
        if count != gallery.items:
            raise self._damaged(f"gallery {gallery.name} states {gallery.items} items and holds {count}")


def _statuses(items: Sequence[NewItem], existing: Collection[str]) -> list[WriteStatus]:
    seen = set(existing)
    statuses: list[WriteStatus] = []
    for new in items:
        statuses.append("updated" if new.item.id in seen else "added")
        seen.add(new.item.id)
    return statuses
