"""Fast reading of a whole gallery: plain tuples of the driver, and one object per item."""

from __future__ import annotations

import json
import secrets
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import cache, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Row, Select, Table, Text, cast, select

from models.card import Modality
from server.domain.timestamps import from_microseconds
from server.domain.types import CropWarning, Item, Scalar, VectorType
from server.storage.encryption import Encryption, NotDecrypted, encryption_of, place_of
from server.storage.protocol import ItemChunk
from server.storage.tables import items

__all__ = ["Rows", "changed_items", "rows_of"]

_PAGE = 1000

_items = items.c
_MODALITIES = {modality.value: modality for modality in Modality}

Rows = NDArray[np.int64]


def changed_items(
    connection: Connection,
    gallery: Row[Any],
    since: int,
    vectors: Table,
    dimension: int,
    damaged: Callable[[str], Exception],
) -> Iterator[ItemChunk]:
    """Yield the items put or updated after sequence number ``since``, by row, with the vectors of that table.

    Raises ``damaged`` with a finding.
    """
    dtype = VectorType(gallery.vector_type).dtype
    for rows, blobs, checksums, keys, *columns in _pages(connection, _query(gallery, since, vectors)):
        found = list(map(_item, *columns))
        for number, blob in enumerate(blobs):
            if blob is None or zlib.crc32(blob) != checksums[number]:
                raise damaged(f"the vector of item {found[number].id} is not the one that was stored")
        try:
            opened = _decrypted(encryption_of(connection), vectors, rows, blobs, keys)
        except NotDecrypted as error:
            raise damaged(f"the vector in {error} is not the one that was stored") from None
        sizes = set(map(len, opened)) - {dtype.itemsize * dimension}
        if sizes:
            raise damaged(f"a vector has {min(sizes)} bytes, not {dtype.itemsize * dimension}")
        flat = np.frombuffer(b"".join(opened), dtype).reshape(len(opened), dimension)
        yield ItemChunk(np.array(rows, np.int64), found, flat)


def _decrypted(
    encryption: Encryption, table: Table, rows: Sequence[int], blobs: Sequence[bytes], keys: Sequence[str | None]
) -> Sequence[bytes]:
    if not any(keys):
        return blobs
    return [encryption.open(key, blob, place_of(table, row)) for row, blob, key in zip(rows, blobs, keys, strict=True)]


def rows_of(connection: Connection, gallery: Row[Any]) -> Rows:
    """Return the rows of all items, sorted."""
    query = select(_items.row).where(_items.gallery == gallery.number).order_by(_items.row)
    with closing(_raw(connection, query)) as cursor:
        return np.fromiter((row for (row,) in cursor), np.int64)


@cache
def _columns(vectors: Table) -> Select[Any]:
    return select(
        _items.row,
        vectors.c.vector,
        vectors.c.crc32,
        vectors.c.vector_key,
        _items.id,
        _items.modality,
        _items.identity,
        _items.camera,
        _items.captured_at,
        cast(_items.attributes, Text),
        _items.warnings,
        _items.content,
    ).outerjoin(vectors, vectors.c.row == _items.row)


def _query(gallery: Row[Any], since: int, vectors: Table) -> Select[Any]:
    query = _columns(vectors).where(_items.gallery == gallery.number).order_by(_items.row)
    if not since:
        return query
    # Select the rows first: sorting whole records would move their vectors too.
    return query.where(
        _items.row.in_(select(_items.row).where(_items.gallery == gallery.number, _items.sequence > since))
    )


def _pages(connection: Connection, query: Select[Any]) -> Iterator[Sequence[Sequence[Any]]]:
    with closing(_raw(connection, query)) as cursor:
        while page := cursor.fetchmany(_PAGE):
            yield list(zip(*page, strict=True))


def _raw(connection: Connection, query: Select[Any]) -> Any:
    """Return the driver's own cursor, whose rows are plain tuples, and which reads them only as they are fetched."""
    if connection.dialect.name != "postgresql":
        return connection.execute(query).cursor
    compiled = query.compile(connection)
    driver: Any = connection.connection.driver_connection
    cursor = driver.cursor(f"load_{secrets.token_hex(4)}", binary=True)  # text would double the size of vectors
    cursor.itersize = _PAGE
    return cursor.execute(str(compiled), compiled.params)


def _item(
    id: str,
    modality: str,
    identity: str | None,
    camera: str | None,
    captured_at: int | None,
    attributes: str,
    warnings: int,
    content: str | None,
) -> Item:
    return Item(
        id,
        _MODALITIES[modality],
        identity,
        camera,
        None if captured_at is None else from_microseconds(captured_at),
        _attributes(attributes),
        CropWarning.from_bits(warnings),
        content,
    )


@lru_cache(4096)
def _attributes(text: str) -> dict[str, Scalar]:
    attributes: dict[str, Scalar] = json.loads(text)
    return attributes
