"""The truth: what every gallery holds, in SQL."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from sqlalchemy import ColumnElement, Connection, Row, Select, delete, insert, or_, select, update
from sqlalchemy.engine import make_url
from sqlalchemy.exc import IntegrityError

from models.card import Modality
from server.errors import GalleryExists, GalleryNotFound, ItemNotFound
from server.gallery import tables
from server.gallery.database import open_database, reading, scrub, writing
from server.gallery.filters import has_attributes
from server.gallery.lock import DirectoryLock
from server.gallery.moments import from_micros, to_micros
from server.gallery.refused import DatabaseDamaged
from server.gallery.types import Filter, Gallery, Item, NewItem, Vectors, WriteStatus

__all__ = ["GALLERY_CHANGES", "ITEM_CHANGES", "Chunk", "SqlStore", "Store", "check_changes"]

GALLERY_CHANGES = frozenset({"retention_days", "description"})
"""What of a gallery may change."""
ITEM_CHANGES = frozenset({"identity", "camera", "captured_at", "attributes"})
"""What of an item may change."""

_PAGE = 1000
"""Rows of a page when a filter goes through many; also below SQLite's number of parameters."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Items of a gallery and their vectors, float32 ``[len(items), dimension]``."""

    items: Sequence[Item]
    vectors: Vectors


class Store(Protocol):
    """Galleries and their items. What a method that writes has returned from is on the disk; what raised is not stored.

    Each gallery has a sequence number: 0 at first, one more with each committed change of its items. Methods may be
    called from any thread. A method that names a gallery raises ``GalleryNotFound`` without it, one that names an item
    ``ItemNotFound``, one that writes ``StorageFull`` when the disk has no room.
    """

    def create_gallery(self, gallery: Gallery) -> None:
        """Store an empty gallery (``items`` is not looked at). Raises ``GalleryExists``."""

    def gallery(self, name: str) -> Gallery:
        """One gallery, with its number of items."""

    def galleries(self, *, limit: int | None = None, after: str | None = None) -> list[Gallery]:
        """Galleries by name, those that come after ``after``; ``limit`` None: all."""

    def update_gallery(self, name: str, changes: Mapping[str, object]) -> Gallery:
        """Set what ``GALLERY_CHANGES`` names. Raises ValueError for anything else."""

    def delete_gallery(self, name: str) -> None:
        """Remove a gallery with everything in it."""

    def sequences(self) -> dict[str, int]:
        """The sequence number of every gallery."""

    def put(self, name: str, items: Sequence[NewItem]) -> tuple[list[WriteStatus], int]:
        """Store all items or none; one whose id is there (or came earlier in ``items``) is replaced whole.

        Returns what happened to each, and the gallery's new sequence number.
        """

    def item(self, name: str, item: str) -> Item:
        """One item."""

    def items(self, name: str, where: Filter, *, limit: int, after: str | None = None) -> list[Item]:
        """At most ``limit`` items that pass ``where``, by id, those that come after ``after``."""

    def update_item(self, name: str, item: str, changes: Mapping[str, object]) -> tuple[Item, int]:
        """Set what ``ITEM_CHANGES`` names; returns the item and the new sequence. ValueError for anything else."""

    def delete_item(self, name: str, item: str) -> int:
        """Remove an item with its vector and thumbnail; returns the new sequence number."""

    def delete_items(self, name: str, where: Filter) -> tuple[list[str], int]:
        """Remove all that pass ``where``; returns their ids and the sequence number, the old one if there are none."""

    def delete_stored_before(self, name: str, moment: datetime) -> tuple[list[str], int]:
        """Remove all that were stored before ``moment``; returns what ``delete_items`` returns."""

    def thumbnail(self, name: str, item: str) -> bytes:
        """An item's thumbnail. ``ItemNotFound`` also when it has none."""

    def vector(self, name: str, item: str) -> tuple[Item, Vectors]:
        """An item and its vector, float32 ``[dimension]``."""

    def load(self, name: str) -> AbstractContextManager[tuple[int, Iterator[Chunk]]]:
        """A sequence number and all items at that number, in the order they were stored.

        Raises ``DatabaseDamaged`` while iterating, when something is not what was written.
        """

    def close(self) -> None:
        """Let go of the database."""


def check_changes(changes: Mapping[str, object], known: frozenset[str]) -> None:
    """Raise ValueError for a change that is not among ``known``."""
    if unknown := sorted(changes.keys() - known):
        raise ValueError(f"cannot change {', '.join(unknown)}; what may change is {', '.join(sorted(known))}")


class SqlStore:
    """A ``Store`` in a SQLite file (``sqlite:///PATH``) or in PostgreSQL.

    The file's directory is locked against other processes and made when missing. ``engine`` serves the API keys and
    the audit trail, which live in the same database.

    Raises:
        DirectoryLocked: another process has the directory.
        DatabaseDamaged, DatabaseTooNew: see ``open_database``.
        ValueError: a SQLite database in memory; ``MemoryStore`` is that.
    """

    def __init__(self, url: str) -> None:
        self._lock = _lock_directory(url)
        try:
            self.engine = open_database(url)
        except BaseException:
            self._release()
            raise
        self._unscrubbed = False

    def close(self) -> None:
        self.engine.dispose()
        self._release()

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.close()

    def create_gallery(self, gallery: Gallery) -> None:
        try:
            with self._writing() as connection:
                connection.execute(
                    insert(tables.galleries).values(
                        name=gallery.name,
                        model=gallery.model,
                        fingerprint=gallery.fingerprint,
                        dimension=gallery.dimension,
                        created_at=to_micros(gallery.created_at),
                        description=gallery.description,
                        retention_days=gallery.retention_days,
                        items=0,
                        sequence=0,
                    )
                )
        except IntegrityError:
            raise GalleryExists(gallery.name) from None

    def gallery(self, name: str) -> Gallery:
        with reading(self.engine) as connection:
            return _to_gallery(_find(connection, name))

    def galleries(self, *, limit: int | None = None, after: str | None = None) -> list[Gallery]:
        query = select(tables.galleries).order_by(tables.galleries.c.name).limit(limit)
        if after is not None:
            query = query.where(tables.galleries.c.name > after)
        with reading(self.engine) as connection:
            return [_to_gallery(row) for row in connection.execute(query)]

    def update_gallery(self, name: str, changes: Mapping[str, object]) -> Gallery:
        check_changes(changes, GALLERY_CHANGES)
        with self._writing() as connection:
            number = _find(connection, name, lock=True).number
            if changes:
                _change(connection, number, changes)
            return _to_gallery(_find(connection, name))

    def delete_gallery(self, name: str) -> None:
        with self._writing(deletes=True) as connection:
            number = _find(connection, name, lock=True).number
            connection.execute(delete(tables.galleries).where(tables.galleries.c.number == number))

    def sequences(self) -> dict[str, int]:
        with reading(self.engine) as connection:
            rows = connection.execute(select(tables.galleries.c.name, tables.galleries.c.sequence))
            return {row.name: row.sequence for row in rows}

    def put(self, name: str, items: Sequence[NewItem]) -> tuple[list[WriteStatus], int]:
        last = {new.item.id: new for new in items}
        with self._writing() as connection:
            gallery = _find(connection, name, lock=True)
            old = _rows_of(connection, gallery.number, list(last))
            _delete_rows(connection, list(old.values()))
            _insert(connection, gallery.number, list(last.values()))
            sequence = _count(connection, gallery, len(last) - len(old))
        return _statuses(items, old.keys()), sequence

    def item(self, name: str, item: str) -> Item:
        with reading(self.engine) as connection:
            return _to_item(_find_item(connection, name, item, select(tables.items)))

    def items(self, name: str, where: Filter, *, limit: int, after: str | None = None) -> list[Item]:
        with reading(self.engine) as connection:
            rows = _filtered(connection, _find(connection, name).number, where, limit, after)
            return [_to_item(row) for row in rows]

    def update_item(self, name: str, item: str, changes: Mapping[str, object]) -> tuple[Item, int]:
        check_changes(changes, ITEM_CHANGES)
        with self._writing() as connection:
            gallery = _find(connection, name, lock=True)
            row = _find_item(connection, name, item, select(tables.items)).row
            if changes:
                here = tables.items.c.row == row
                connection.execute(update(tables.items).where(here).values(**_to_columns(changes)))
            sequence = _count(connection, gallery, 0)
            return _to_item(_find_item(connection, name, item, select(tables.items))), sequence

    def delete_item(self, name: str, item: str) -> int:
        with self._writing(deletes=True) as connection:
            gallery = _find(connection, name, lock=True)
            _delete_rows(connection, [_find_item(connection, name, item, select(tables.items)).row])
            return _count(connection, gallery, -1)

    def delete_items(self, name: str, where: Filter) -> tuple[list[str], int]:
        with self._writing(deletes=True) as connection:
            gallery = _find(connection, name, lock=True)
            return _delete_found(connection, gallery, _filtered(connection, gallery.number, where, None, None))

    def delete_stored_before(self, name: str, moment: datetime) -> tuple[list[str], int]:
        items = tables.items.c
        with self._writing(deletes=True) as connection:
            gallery = _find(connection, name, lock=True)
            due = select(items.row, items.id).where(
                items.gallery == gallery.number, items.stored_at < to_micros(moment)
            )
            return _delete_found(connection, gallery, connection.execute(due.order_by(items.id)).all())

    def thumbnail(self, name: str, item: str) -> bytes:
        query = select(tables.thumbnails.c.image).join(tables.items)
        with reading(self.engine) as connection:
            return bytes(_find_item(connection, name, item, query).image)

    def vector(self, name: str, item: str) -> tuple[Item, Vectors]:
        with reading(self.engine) as connection:
            gallery = _find(connection, name)
            row = _find_item(connection, name, item, _WITH_VECTOR)
            return _to_item(row), self._decode([row], gallery.dimension)[0]

    @contextmanager
    def load(self, name: str) -> Iterator[tuple[int, Iterator[Chunk]]]:
        with reading(self.engine) as connection:
            gallery = _find(connection, name)
            yield gallery.sequence, self._chunks(connection, gallery)

    def _chunks(self, connection: Connection, gallery: Row[Any]) -> Iterator[Chunk]:
        here = tables.items.c.gallery == gallery.number
        query = _WITH_VECTOR.where(here).order_by(tables.items.c.row)
        count = 0
        for rows in connection.execute(query, execution_options={"yield_per": _PAGE}).partitions():
            count += len(rows)
            yield Chunk([_to_item(row) for row in rows], self._decode(rows, gallery.dimension))
        if count != gallery.items:
            raise self._damaged(f"gallery {gallery.name} states {gallery.items} items and holds {count}")

    def _decode(self, rows: Sequence[Row[Any]], dimension: int) -> Vectors:
        for row in rows:
            if row.vector is None or len(row.vector) != 4 * dimension or zlib.crc32(row.vector) != row.crc32:
                raise self._damaged(f"the vector of item {row.id} is not the one that was stored")
        flat = np.frombuffer(b"".join(row.vector for row in rows), "<f4")
        return flat.astype(np.float32, copy=False).reshape(len(rows), dimension)

    def _damaged(self, finding: str) -> DatabaseDamaged:
        return DatabaseDamaged(self.engine.url.database or "", finding)

    @contextmanager
    def _writing(self, *, deletes: bool = False) -> Iterator[Connection]:
        with writing(self.engine) as connection:
            yield connection
        self._unscrubbed |= deletes
        if self._unscrubbed:
            self._unscrubbed = not scrub(self.engine)


_WITH_VECTOR = select(tables.items, tables.vectors.c.vector, tables.vectors.c.crc32).outerjoin(
    tables.vectors, tables.vectors.c.row == tables.items.c.row
)


def _lock_directory(url: str) -> DirectoryLock | None:
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return None
    if parsed.database in (None, "", ":memory:"):
        raise ValueError(f"expected sqlite:///PATH, found {url}: a database in memory does not last")
    return DirectoryLock(Path(parsed.database).parent)


def _find(connection: Connection, name: str, *, lock: bool = False) -> Row[Any]:
    """The gallery's row. ``lock``: nobody else changes the gallery before this transaction ends."""
    query = select(tables.galleries).where(tables.galleries.c.name == name)
    row = connection.execute(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise GalleryNotFound(name)
    return row


def _find_item(connection: Connection, name: str, item: str, query: Select[Any]) -> Row[Any]:
    gallery = _find(connection, name).number
    row = connection.execute(query.where(tables.items.c.gallery == gallery, tables.items.c.id == item)).one_or_none()
    if row is None:
        raise ItemNotFound(name, item)
    return row


def _change(connection: Connection, gallery: int, values: Mapping[str, object]) -> None:
    connection.execute(update(tables.galleries).where(tables.galleries.c.number == gallery).values(**values))


def _count(connection: Connection, gallery: Row[Any], more: int) -> int:
    """Note a change of the items and how many more there are now; returns the new sequence number."""
    sequence: int = gallery.sequence + 1
    _change(connection, gallery.number, {"sequence": sequence, "items": gallery.items + more})
    return sequence


def _rows_of(connection: Connection, gallery: int, ids: Sequence[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for start in range(0, len(ids), _PAGE):
        query = select(tables.items.c.id, tables.items.c.row).where(
            tables.items.c.gallery == gallery, tables.items.c.id.in_(ids[start : start + _PAGE])
        )
        found |= {row.id: row.row for row in connection.execute(query)}
    return found


def _delete_rows(connection: Connection, rows: Sequence[int]) -> None:
    """Vectors and thumbnails go with their items, by the foreign keys."""
    for start in range(0, len(rows), _PAGE):
        part = rows[start : start + _PAGE]
        connection.execute(delete(tables.items).where(tables.items.c.row.in_(part)))


def _delete_found(connection: Connection, gallery: Row[Any], found: Sequence[Any]) -> tuple[list[str], int]:
    if not found:
        return [], gallery.sequence
    _delete_rows(connection, [row.row for row in found])
    return [row.id for row in found], _count(connection, gallery, -len(found))


def _insert(connection: Connection, gallery: int, new: Sequence[NewItem]) -> None:
    if not new:
        return
    added = connection.execute(
        insert(tables.items).returning(tables.items.c.id, tables.items.c.row),
        [_to_row(gallery, one.item) | {"stored_at": to_micros(one.stored_at)} for one in new],
    )
    rows = {row.id: row.row for row in added}
    blobs = [(rows[one.item.id], np.asarray(one.vector, "<f4").tobytes()) for one in new]
    connection.execute(
        insert(tables.vectors),
        [{"row": row, "vector": blob, "crc32": zlib.crc32(blob)} for row, blob in blobs],
    )
    images = [{"row": rows[one.item.id], "image": one.thumbnail} for one in new if one.thumbnail is not None]
    if images:
        connection.execute(insert(tables.thumbnails), images)


def _filtered(
    connection: Connection, gallery: int, where: Filter, limit: int | None, after: str | None
) -> list[Row[Any]]:
    """Items that pass, by id. SQL decides all but attributes, whose JSON every database compares in its own way."""
    query = select(tables.items).where(tables.items.c.gallery == gallery, *_conditions(where))
    query = query.order_by(tables.items.c.id)
    if not where.attributes:
        query = query.limit(limit)
    if after is not None:
        query = query.where(tables.items.c.id > after)
    found: list[Row[Any]] = []
    with connection.execute(query, execution_options={"yield_per": _PAGE}) as rows:
        for row in rows:
            if limit is not None and len(found) >= limit:
                break
            if has_attributes(row.attributes, where.attributes):
                found.append(row)
    return found


def _conditions(where: Filter) -> Iterator[ColumnElement[bool]]:
    items = tables.items.c
    if where.modality is not None:
        yield items.modality == where.modality.value
    if where.cameras:
        yield items.camera.in_(sorted(where.cameras))
    if where.exclude_cameras:
        yield or_(items.camera.is_(None), items.camera.not_in(sorted(where.exclude_cameras)))
    if where.identities:
        yield items.identity.in_(sorted(where.identities))
    if where.captured_from is not None:
        yield items.captured_at >= to_micros(where.captured_from)
    if where.captured_to is not None:
        yield items.captured_at < to_micros(where.captured_to)


def _statuses(items: Sequence[NewItem], there: Sequence[str] | Any) -> list[WriteStatus]:
    seen = set(there)
    statuses: list[WriteStatus] = []
    for new in items:
        statuses.append("updated" if new.item.id in seen else "added")
        seen.add(new.item.id)
    return statuses


def _to_gallery(row: Row[Any]) -> Gallery:
    return Gallery(
        name=row.name,
        model=row.model,
        fingerprint=row.fingerprint,
        dimension=row.dimension,
        created_at=from_micros(row.created_at),
        items=row.items,
        description=row.description,
        retention_days=row.retention_days,
    )


def _to_item(row: Row[Any]) -> Item:
    return Item(
        id=row.id,
        modality=Modality(row.modality),
        identity=row.identity,
        camera=row.camera,
        captured_at=None if row.captured_at is None else from_micros(row.captured_at),
        attributes=row.attributes,
    )


def _to_row(gallery: int, item: Item) -> dict[str, object]:
    changeable = {name: getattr(item, name) for name in ITEM_CHANGES}
    return {"gallery": gallery, "id": item.id, "modality": item.modality.value, **_to_columns(changeable)}


def _to_columns(changes: Mapping[str, Any]) -> dict[str, object]:
    columns = dict(changes)
    if columns.get("captured_at") is not None:
        columns["captured_at"] = to_micros(columns["captured_at"])
    if "attributes" in columns:
        columns["attributes"] = dict(columns["attributes"])
    return columns
