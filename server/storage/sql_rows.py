"""Statements about rows of galleries and items that the parts of the SQL store share, within a transaction."""

from __future__ import annotations

import json
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from sqlalchemy import ColumnElement, Connection, Row, Select, Table, bindparam, delete, insert, select, update

from server.domain.errors import GalleryNotFound, ItemNotFound
from server.domain.types import Filter, NewItem, VectorType
from server.storage import tables
from server.storage.encryption import Encryption, encryption_of, place_of
from server.storage.mapping import among, among_numbers, conditions, passes, to_record
from server.storage.protocol import DRAFT_SUFFIX

__all__ = [
    "ADDRESSABLE",
    "DELETED_PREFIX",
    "DELETE_BY_ROW",
    "ITEM_METADATA",
    "ITEM_ROW",
    "LISTED",
    "MATCHING_ITEM",
    "PAGE",
    "VECTOR_TABLES",
    "advance_sequence",
    "change_gallery",
    "delete_rows",
    "filtered_items",
    "find_gallery",
    "find_item",
    "insert_items",
    "insert_vectors",
    "items_with_ids",
    "lacks_vector",
    "own_vectors",
    "thumbnail_records",
    "unused_vectors",
    "vector_records",
]

PAGE = 1000
"""Rows that are read at a time when a filter goes through many."""
DELETED_PREFIX = "~"
"""Begins the name of a gallery that is being deleted; no other name begins with it."""

_galleries, _items = tables.galleries.c, tables.items.c

# Statements are built once: building one takes longer than running it.
ADDRESSABLE = select(tables.galleries).where(~_galleries.name.startswith(DELETED_PREFIX))
LISTED = ADDRESSABLE.where(~_galleries.name.endswith(DRAFT_SUFFIX))
_FIND = ADDRESSABLE.where(_galleries.name == bindparam("name"))
_FIND_LOCKED = _FIND.with_for_update()
MATCHING_ITEM = (_items.gallery == bindparam("gallery"), _items.id == bindparam("id"))
ITEM_METADATA = select(tables.items).where(*MATCHING_ITEM)
ITEM_ROW = select(_items.row, _items.id).where(*MATCHING_ITEM)
VECTOR_TABLES = (tables.vectors, tables.other_vectors)
_BY_ID = select(tables.items).where(_items.gallery == bindparam("gallery"), _items.id.in_(among(bindparam("ids"))))
_ADDED = select(_items.id, _items.row).where(
    _items.gallery == bindparam("gallery"), _items.sequence == bindparam("sequence")
)
_INSERT_ITEM, _INSERT_THUMBNAIL = insert(tables.items), insert(tables.thumbnails)
_INSERT_VECTOR = {table: insert(table) for table in VECTOR_TABLES}
DELETE_BY_ROW = {
    table: delete(table).where(table.c.row.in_(among_numbers(bindparam("rows"))))
    for table in (*VECTOR_TABLES, tables.thumbnails, tables.items)
}
_ADVANCE = (
    update(tables.galleries)
    .where(_galleries.number == bindparam("gallery"))
    .values(sequence=bindparam("sequence"), items=bindparam("items"))
)


def find_gallery(connection: Connection, name: str, *, lock: bool = False) -> Row[Any]:
    """Return the gallery's row. ``lock`` keeps others from changing the gallery before this transaction ends."""
    row = connection.execute(_FIND_LOCKED if lock else _FIND, {"name": name}).one_or_none()
    if row is None:
        raise GalleryNotFound(name)
    return row


def find_item(connection: Connection, name: str, item: str, query: Select[Any]) -> Row[Any]:
    """Return the row of an item that ``query`` selects."""
    gallery = find_gallery(connection, name).number
    row = connection.execute(query, {"gallery": gallery, "id": item}).one_or_none()
    if row is None:
        raise ItemNotFound(name, item)
    return row


def own_vectors(gallery: Row[Any]) -> Table:
    """Return the table of the gallery's own vectors."""
    return VECTOR_TABLES[gallery.uses_other_vectors]


def unused_vectors(gallery: Row[Any]) -> Table:
    """Return the table that collects the vectors of a re-embedding."""
    return VECTOR_TABLES[not gallery.uses_other_vectors]


def lacks_vector(vectors: Table) -> ColumnElement[bool]:
    """Return the condition that an item has no vector in that table."""
    return ~select(vectors.c.row).where(vectors.c.row == _items.row).exists()


def change_gallery(connection: Connection, gallery: int, values: Mapping[str, object]) -> None:
    """Set columns of a gallery."""
    connection.execute(update(tables.galleries).where(_galleries.number == gallery).values(**values))


def advance_sequence(connection: Connection, gallery: Row[Any], added: int) -> int:
    """Note a change of the items and how many were ``added``; return the new sequence number."""
    sequence: int = gallery.sequence + 1
    values = {"gallery": gallery.number, "sequence": sequence, "items": gallery.items + added}
    connection.execute(_ADVANCE, values)
    return sequence


def items_with_ids(connection: Connection, gallery: int, ids: Collection[str]) -> Sequence[Any]:
    """Return the rows of those items that exist."""
    return connection.execute(_BY_ID, {"gallery": gallery, "ids": json.dumps(list(ids))}).all()


def filtered_items(
    connection: Connection, gallery: int, where: Filter, limit: int | None = None, after: str | None = None
) -> list[Row[Any]]:
    """Return at most ``limit`` items that pass the filter, by id, starting behind ``after``."""
    query = select(tables.items).where(_items.gallery == gallery, *conditions(where)).order_by(_items.id)
    if not (where.attributes or where.exclude_attributes):
        query = query.limit(limit)
    if after is not None:
        query = query.where(_items.id > after)
    found: list[Row[Any]] = []
    with connection.execute(query, execution_options={"yield_per": PAGE}) as rows:
        for row in rows:
            if limit is not None and len(found) >= limit:
                break
            if passes(row.attributes, where):
                found.append(row)
    return found


def insert_items(connection: Connection, gallery: Row[Any], sequence: int, new: Sequence[NewItem]) -> dict[str, int]:
    """Insert items whose ids are unused; return their rows by id."""
    if not new:
        return {}
    records = [
        to_record(one.item) | {"gallery": gallery.number, "stored_at": one.stored_at, "sequence": sequence}
        for one in new
    ]
    connection.execute(_INSERT_ITEM, records)
    added = connection.execute(_ADDED, {"gallery": gallery.number, "sequence": sequence})
    rows = {row.id: row.row for row in added}
    dtype = VectorType(gallery.vector_type).dtype
    blobs = [(rows[one.item.id], np.asarray(one.vector, dtype).tobytes()) for one in new]
    insert_vectors(connection, own_vectors(gallery), blobs)
    images = [(rows[one.item.id], one.thumbnail) for one in new if one.thumbnail is not None]
    if images and gallery.thumbnails:
        connection.execute(_INSERT_THUMBNAIL, thumbnail_records(encryption_of(connection), images))
    return rows


def insert_vectors(connection: Connection, table: Table, blobs: Sequence[tuple[int, bytes]]) -> None:
    """Insert vectors by row."""
    if blobs:
        connection.execute(_INSERT_VECTOR[table], vector_records(encryption_of(connection), table, blobs))


def vector_records(encryption: Encryption, table: Table, blobs: Iterable[tuple[int, bytes]]) -> list[dict[str, object]]:
    """Return the rows of vectors, encrypted."""
    sealed = [(row, encryption.seal(blob, place_of(table, row))) for row, blob in blobs]
    key = encryption.key
    return [{"row": row, "vector": blob, "crc32": zlib.crc32(blob), "vector_key": key} for row, blob in sealed]


def thumbnail_records(encryption: Encryption, images: Iterable[tuple[int, bytes]]) -> list[dict[str, object]]:
    """Return the rows of thumbnails, encrypted."""
    sealed = [(row, encryption.seal(image, place_of(tables.thumbnails, row))) for row, image in images]
    return [
        {"row": row, "image": image, "crc32": zlib.crc32(image, row), "image_key": encryption.key}
        for row, image in sealed
    ]


def delete_rows(connection: Connection, rows: Sequence[int]) -> tuple[int, int]:
    """Delete items with their vectors and thumbnails; return the numbers of vectors and of thumbnails."""
    if not rows:
        return 0, 0
    numbers = {"rows": json.dumps(list(rows))}
    vectors = sum(connection.execute(DELETE_BY_ROW[table], numbers).rowcount for table in VECTOR_TABLES)
    thumbnails = connection.execute(DELETE_BY_ROW[tables.thumbnails], numbers).rowcount
    connection.execute(DELETE_BY_ROW[tables.items], numbers)
    return vectors, thumbnails
