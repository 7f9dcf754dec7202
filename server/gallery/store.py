"""The truth: what every gallery holds, in SQL."""

from __future__ import annotations

import json
import logging
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from functools import partial
from threading import Event, Thread
from typing import Any, ParamSpec, TypeVar

import numpy as np
from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Row,
    Select,
    Table,
    bindparam,
    delete,
    func,
    insert,
    select,
    tuple_,
    update,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import IntegrityError

from server.errors import (
    AliasExists,
    AliasNotFound,
    ErasureNotFound,
    GalleryExists,
    GalleryNotFound,
    ItemNotFound,
    StorageFull,
)
from server.gallery import tables
from server.gallery.database import after_commit, database_name, reading, scrub, writing
from server.gallery.loading import Rows, changed_items, rows_of
from server.gallery.lock import DirectoryLock
from server.gallery.moments import from_micros, to_micros
from server.gallery.opening import check, database_file, open_database
from server.gallery.protocol import (
    DRAFT,
    GALLERY_CHANGES,
    ITEM_CHANGES,
    Chunk,
    Deleted,
    Loaded,
    Put,
    Store,
    Unrenewed,
    check_changes,
)
from server.gallery.records import (
    among,
    among_numbers,
    conditions,
    passes,
    to_columns,
    to_erasure,
    to_gallery,
    to_item,
    to_record,
)
from server.gallery.refused import DatabaseDamaged
from server.gallery.reserve import Reserve
from server.gallery.types import (
    Erasure,
    Filter,
    Gallery,
    Item,
    NewItem,
    Renewal,
    Vectors,
    VectorType,
    WriteStatus,
)

__all__ = ["SqlStore", "Store"]

_PAGE = 1000
"""Rows of a page when a filter goes through many."""
_BATCH = 2000
"""Items of a deleted gallery that go in one transaction: others write between two."""
_STEP = 16
"""Items that are erased in one transaction when the disk is full: what it writes first must fit into the reserve."""
_DELETED = "~"
"""Begins the name of a gallery that is being deleted; no other name has it."""

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

_galleries, _items = tables.galleries.c, tables.items.c
_thumbnails = tables.thumbnails.c
_aliases, _erasures = tables.aliases.c, tables.erasures.c

# Statements are made once: to make one takes longer than to run it.
_ADDRESSABLE = select(tables.galleries).where(~_galleries.name.startswith(_DELETED))
_LISTED = _ADDRESSABLE.where(~_galleries.name.endswith(DRAFT))
_FIND = _ADDRESSABLE.where(_galleries.name == bindparam("name"))
_FIND_LOCKED = _FIND.with_for_update()
_ITEM = (_items.gallery == bindparam("gallery"), _items.id == bindparam("id"))
_FACTS = select(tables.items).where(*_ITEM)
_ROW = select(_items.row, _items.id).where(*_ITEM)
_THUMBNAIL = select(tables.thumbnails).join(tables.items).where(*_ITEM)
_VECTOR_TABLES = (tables.vectors, tables.other_vectors)
_VECTOR = {
    table: select(tables.items, table.c.vector, table.c.crc32).outerjoin(table, table.c.row == _items.row).where(*_ITEM)
    for table in _VECTOR_TABLES
}
_STRAYS = [
    select(func.count()).select_from(part).where(part.c.row.not_in(select(_items.row)))
    for part in (*_VECTOR_TABLES, tables.thumbnails)
]
_BY_ID = select(tables.items).where(_items.gallery == bindparam("gallery"), _items.id.in_(among(bindparam("ids"))))
_ADDED = select(_items.id, _items.row).where(
    _items.gallery == bindparam("gallery"), _items.sequence == bindparam("sequence")
)
_THERE = select(_items.id, _items.row).where(_items.row.in_(among_numbers(bindparam("rows")))).order_by(_items.id)
_DUE = (
    select(_items.id, _items.row)
    .where(_items.gallery == bindparam("gallery"), _items.stored_at < bindparam("moment"))
    .order_by(_items.id)
)
_INSERT_ITEM, _INSERT_THUMBNAIL = insert(tables.items), insert(tables.thumbnails)
_INSERT_VECTOR = {table: insert(table) for table in _VECTOR_TABLES}
_DELETE = {
    table: delete(table).where(table.c.row.in_(among_numbers(bindparam("rows"))))
    for table in (*_VECTOR_TABLES, tables.thumbnails, tables.items)
}
_COUNT = (
    update(tables.galleries)
    .where(_galleries.number == bindparam("gallery"))
    .values(sequence=bindparam("sequence"), items=bindparam("items"))
)


class SqlStore:
    """A ``Store`` in a SQLite file (``sqlite:///PATH``) or in PostgreSQL.

    The file's directory is locked against other processes and made when missing. ``engine`` serves the API keys, the
    audit trail and the jobs, which live in the same database. What is read may be trusted when ``check`` has returned;
    it also goes on with deletions that a crash has interrupted, in the background.

    Raises:
        DirectoryLocked: another process has the directory.
        DatabaseDamaged, DatabaseMissing, DatabaseTooNew, StorageFull: see ``open_database``.
        ValueError: a SQLite database in memory; ``MemoryStore`` is that.
    """

    def __init__(self, url: str) -> None:
        file = database_file(make_url(url))
        self._lock = None if file is None else DirectoryLock(file.parent)
        self._reserve = None if file is None else Reserve(file.parent / "RESERVE")
        self._closing = Event()
        try:
            self.engine = self._open(url)
        except BaseException:
            self._release()
            raise
        self._sweeper: Thread | None = None

    def _open(self, url: str) -> Engine:
        try:
            engine = open_database(url)
        except StorageFull:
            if self._reserve is None:
                raise
            with self._reserve.released():
                return open_database(url)
        if self._reserve is not None:
            self._reserve.keep()
        return engine

    def close(self) -> None:
        self._closing.set()
        if self._sweeper is not None:
            self._sweeper.join()
        self.engine.dispose()
        self._release()

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.close()

    def check(self) -> None:
        check(self.engine)
        self._sweeper = Thread(target=self._sweep, name="sweep", daemon=True)
        self._sweeper.start()

    def scrub(self) -> bool:
        return scrub(self.engine)

    def create_gallery(self, gallery: Gallery, then: Callable[[], None] | None = None) -> None:
        try:
            with writing(self.engine) as connection:
                if connection.execute(select(_aliases.name).where(_aliases.name == gallery.name)).one_or_none():
                    raise AliasExists(gallery.name)
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
                        vector_type=gallery.vector_type.value,
                        thumbnails=gallery.thumbnails,
                    )
                )
                self._then(then)
        except IntegrityError:
            raise GalleryExists(gallery.name) from None

    def gallery(self, name: str) -> Gallery:
        with reading(self.engine) as connection:
            return to_gallery(_find(connection, name))

    def galleries(self, *, limit: int | None = None, after: str | None = None) -> list[Gallery]:
        query = _LISTED.order_by(_galleries.name).limit(limit)
        if after is not None:
            query = query.where(_galleries.name > after)
        with reading(self.engine) as connection:
            return [to_gallery(row) for row in connection.execute(query)]

    def drafts(self) -> list[str]:
        names = select(_galleries.name).where(_galleries.name.endswith(DRAFT))
        with reading(self.engine) as connection:
            return list(connection.scalars(names))

    def rename_gallery(self, name: str, to: str, then: Callable[[], None] | None = None) -> None:
        try:
            with writing(self.engine) as connection:
                if connection.execute(select(_aliases.name).where(_aliases.name == to)).one_or_none():
                    raise AliasExists(to)
                _change(connection, _find(connection, name, lock=True).number, {"name": to})
                self._then(then)
        except IntegrityError:
            raise GalleryExists(to) from None

    def update_gallery(self, name: str, changes: Mapping[str, object]) -> Gallery:
        check_changes(changes, GALLERY_CHANGES)
        with writing(self.engine) as connection:
            number = _find(connection, name, lock=True).number
            if changes:
                _change(connection, number, changes)
            return to_gallery(_find(connection, name))

    def delete_gallery(self, name: str, then: Callable[[], None] | None = None) -> None:
        number = self._with_room(lambda _: self._hide(name, then))
        self._with_room(partial(self._empty, number))

    def sequences(self) -> dict[str, int]:
        with reading(self.engine) as connection:
            return {row.name: row.sequence for row in connection.execute(_LISTED)}

    def set_alias(self, name: str, gallery: str) -> None:
        with writing(self.engine) as connection:
            if connection.execute(_ADDRESSABLE.where(_galleries.name == name)).one_or_none():
                raise GalleryExists(name)
            number = _find(connection, gallery).number
            connection.execute(delete(tables.aliases).where(_aliases.name == name))
            connection.execute(insert(tables.aliases).values(name=name, gallery=number))

    def remove_alias(self, name: str) -> None:
        with writing(self.engine) as connection:
            if not connection.execute(delete(tables.aliases).where(_aliases.name == name)).rowcount:
                raise AliasNotFound(name)

    def aliases(self) -> dict[str, str]:
        query = select(_aliases.name, _galleries.name.label("gallery")).join(tables.galleries)
        with reading(self.engine) as connection:
            return {row.name: row.gallery for row in connection.execute(query.order_by(_aliases.name))}

    def put(self, name: str, items: Sequence[NewItem], then: Callable[[Put], None] | None = None) -> Put:
        last = {new.item.id: new for new in items}
        with writing(self.engine) as connection:
            gallery = _find(connection, name, lock=True)
            old = {row.id: row.row for row in _held(connection, gallery.number, last)}
            _delete_rows(connection, list(old.values()))
            sequence = _count(connection, gallery, len(last) - len(old))
            rows = _insert(connection, gallery, sequence, list(last.values()))
            placed = np.array([rows[new.item.id] for new in items], np.int64)
            done = Put(_statuses(items, old.keys()), placed, sequence)
            self._then(then, done)
        return done

    def item(self, name: str, item: str) -> Item:
        with reading(self.engine) as connection:
            return to_item(_find_item(connection, name, item, _FACTS))

    def items(self, name: str, where: Filter, *, limit: int, after: str | None = None) -> list[Item]:
        with reading(self.engine) as connection:
            found = _filtered(connection, _find(connection, name).number, where, limit, after)
            return [to_item(row) for row in found]

    def named(self, name: str, ids: Collection[str]) -> dict[str, Item]:
        with reading(self.engine) as connection:
            held = _held(connection, _find(connection, name).number, ids)
        return {row.id: to_item(row) for row in held}

    def contents(self, name: str, ids: Collection[str]) -> dict[str, str]:
        with reading(self.engine) as connection:
            held = _held(connection, _find(connection, name).number, ids)
        return {row.id: row.content for row in held if row.content is not None}

    def update_item(
        self, name: str, item: str, changes: Mapping[str, object], then: Callable[[Item, int], None] | None = None
    ) -> tuple[Item, int]:
        check_changes(changes, ITEM_CHANGES)
        with writing(self.engine) as connection:
            gallery = _find(connection, name, lock=True)
            row = _find_item(connection, name, item, _ROW).row
            sequence = _count(connection, gallery, 0)
            values = to_columns(changes) | {"sequence": sequence}
            connection.execute(update(tables.items).where(_items.row == row).values(**values))
            updated = to_item(_find_item(connection, name, item, _FACTS))
            self._then(then, updated, sequence)
        return updated, sequence

    def delete_item(self, name: str, item: str, then: Callable[[Deleted], None] | None = None) -> Deleted:
        def found(connection: Connection, _: int) -> Sequence[Any]:
            return [_find_item(connection, name, item, _ROW)]

        return self._with_room(partial(self._erase, name, found, then))

    def delete_items(self, name: str, where: Filter, then: Callable[[Deleted], None] | None = None) -> Deleted:
        def found(connection: Connection, gallery: int) -> Sequence[Any]:
            return _filtered(connection, gallery, where, None, None)

        return self._with_room(partial(self._erase, name, found, then))

    def delete_stored_before(
        self, name: str, moment: datetime, then: Callable[[Deleted], None] | None = None
    ) -> Deleted:
        def found(connection: Connection, gallery: int) -> Sequence[Any]:
            return connection.execute(_DUE, {"gallery": gallery, "moment": to_micros(moment)}).all()

        return self._with_room(partial(self._erase, name, found, then))

    def thumbnail(self, name: str, item: str) -> bytes:
        with reading(self.engine) as connection:
            row = _find_item(connection, name, item, _THUMBNAIL)
        if row.crc32 is not None and zlib.crc32(row.image, row.row) != row.crc32:
            raise self._damaged(f"the thumbnail of item {item} is not the one that was stored")
        return bytes(row.image)

    def vector(self, name: str, item: str) -> tuple[Item, Vectors]:
        with reading(self.engine) as connection:
            gallery = _find(connection, name)
            row = _find_item(connection, name, item, _VECTOR[_own_vectors(gallery)])
        dtype = VectorType(gallery.vector_type).dtype
        if row.vector is None or zlib.crc32(row.vector) != row.crc32:
            raise self._damaged(f"the vector of item {row.id} is not the one that was stored")
        return to_item(row), np.frombuffer(row.vector, dtype).astype(np.float32)

    @contextmanager
    def dump(self, name: str) -> Iterator[tuple[Gallery, Iterator[NewItem]]]:
        with reading(self.engine) as connection:
            gallery = _find(connection, name)
            yield to_gallery(gallery), self._whole(connection, gallery)

    def _whole(self, connection: Connection, gallery: Row[Any]) -> Iterator[NewItem]:
        vectors, dtype = _own_vectors(gallery), VectorType(gallery.vector_type).dtype
        query = (
            select(tables.items, vectors.c.vector, vectors.c.crc32, _thumbnails.image)
            .outerjoin(vectors, vectors.c.row == _items.row)
            .outerjoin(tables.thumbnails, _thumbnails.row == _items.row)
            .where(_items.gallery == gallery.number)
            .order_by(_items.row)
        )
        count = 0
        with connection.execute(query, execution_options={"yield_per": _PAGE}) as rows:
            for row in rows:
                if row.vector is None or zlib.crc32(row.vector) != row.crc32:
                    raise self._damaged(f"the vector of item {row.id} is not the one that was stored")
                vector = np.frombuffer(row.vector, dtype).astype(np.float32)
                image = None if row.image is None else bytes(row.image)
                yield NewItem(to_item(row), vector, image, from_micros(row.stored_at))
                count += 1
        self._check_count(gallery, count)

    def begin_renewal(self, name: str, renewal: Renewal) -> None:
        if (there := self.renewals().get(name)) == renewal:
            return
        if there is not None:
            self.end_renewal(name)
        with writing(self.engine) as connection:
            _change(connection, _find(connection, name, lock=True).number, {"renewal": asdict(renewal)})

    def renewals(self) -> dict[str, Renewal]:
        with reading(self.engine) as connection:
            found = connection.execute(_LISTED.where(_galleries.renewal.is_not(None)))
            return {row.name: Renewal(**row.renewal) for row in found}

    def without_thumbnail(self, name: str) -> int:
        count = select(func.count()).select_from(tables.items.outerjoin(tables.thumbnails))
        with reading(self.engine) as connection:
            number = _find(connection, name).number
            found = connection.scalar(count.where(_items.gallery == number, _thumbnails.row.is_(None)))
        return found or 0

    def unrenewed(self, name: str, *, limit: int, after: int = 0) -> list[Unrenewed]:
        with reading(self.engine) as connection:
            gallery = _find(connection, name)
            query = (
                select(tables.items, _thumbnails.image)
                .where(_items.gallery == gallery.number, _items.row > after, _lacks(_unused_vectors(gallery)))
                .outerjoin(tables.thumbnails, _thumbnails.row == _items.row)
                .order_by(_items.row)
                .limit(limit)
            )
            found = connection.execute(query).all()
        return [Unrenewed(row.row, to_item(row), None if row.image is None else bytes(row.image)) for row in found]

    def renew(self, name: str, vectors: Mapping[int, Vectors]) -> None:
        with writing(self.engine) as connection:
            gallery = _find(connection, name, lock=True)
            table, dtype = _unused_vectors(gallery), VectorType(gallery.vector_type).dtype
            lacking = select(_items.row).where(
                _items.gallery == gallery.number, _items.row.in_(among_numbers(bindparam("rows"))), _lacks(table)
            )
            rows = connection.scalars(lacking, {"rows": json.dumps(list(vectors))}).all()
            _insert_vectors(connection, table, [(row, vectors[row].astype(dtype).tobytes()) for row in rows])

    def switch_renewal(self, name: str, then: Callable[[], None] | None = None) -> None:
        with writing(self.engine) as connection:
            gallery = _find(connection, name, lock=True)
            query = select(_items.row).where(_items.gallery == gallery.number, _lacks(_unused_vectors(gallery)))
            if gallery.renewal is None or connection.execute(query.limit(1)).one_or_none():
                raise ValueError(f"gallery {name} has items without a vector of the other model")
            renewal = Renewal(**gallery.renewal)
            values = {
                "model": renewal.model,
                "fingerprint": renewal.fingerprint,
                "dimension": renewal.dimension,
                "uses_other_vectors": not gallery.uses_other_vectors,
            }
            _change(connection, gallery.number, values)
            self._then(then)

    def end_renewal(self, name: str) -> None:
        last = 0
        while True:
            with writing(self.engine, erases=True) as connection:
                gallery = _find(connection, name, lock=True)
                table = _unused_vectors(gallery)
                query = select(_items.row).join(table, table.c.row == _items.row).order_by(_items.row).limit(_BATCH)
                query = query.where(_items.gallery == gallery.number, _items.row > last)
                rows = connection.scalars(query).all()
                if not rows:
                    _change(connection, gallery.number, {"renewal": None})
                    return
                connection.execute(_DELETE[table], {"rows": json.dumps(list(rows))})
                last = rows[-1]

    @contextmanager
    def load(self, name: str, since: int = 0, *, renewed: bool = False) -> Iterator[Loaded]:
        with reading(self.engine) as connection:
            gallery = _find(connection, name)
            chunks = self._chunks(connection, gallery, since, renewed)
            yield Loaded(gallery.sequence, chunks, partial(self._rows, connection, gallery))

    def _chunks(self, connection: Connection, gallery: Row[Any], since: int, renewed: bool) -> Iterator[Chunk]:
        table, dimension = _own_vectors(gallery), gallery.dimension
        if renewed:
            table, dimension = _unused_vectors(gallery), gallery.renewal["dimension"]
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

    def left_of(self, name: str, ids: Collection[str]) -> int:
        with reading(self.engine) as connection:
            held = len(_held(connection, _find(connection, name).number, ids))
            return held + sum(int(connection.execute(query).scalar_one()) for query in _STRAYS)

    def record_erasure(self, erasure: Erasure) -> None:
        with writing(self.engine) as connection:
            connection.execute(
                insert(tables.erasures).values(
                    id=erasure.id,
                    gallery=erasure.gallery,
                    at=to_micros(erasure.at),
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

    def _then(self, then: Callable[P, None] | None, *args: P.args, **kwargs: P.kwargs) -> None:
        if then is not None:
            after_commit(self.engine, partial(then, *args, **kwargs))

    def _with_room(self, erase: Callable[[int | None], T]) -> T:
        """Erase as much at a time as is good; where the disk is full, few items at a time, with the reserve."""
        try:
            return erase(None)
        except StorageFull:
            if self._reserve is None:
                raise
        with self._reserve.released():
            self.scrub()
            return erase(_STEP)

    def _erase(
        self,
        name: str,
        find: Callable[[Connection, int], Sequence[Any]],
        then: Callable[[Deleted], None] | None,
        step: int | None,
    ) -> Deleted:
        """Delete the rows that ``find`` gives for the gallery's number: all at once, or ``step`` in a transaction."""
        if step is None:
            with writing(self.engine, erases=True) as connection:
                gallery = _find(connection, name, lock=True)
                return self._delete(connection, gallery, find(connection, gallery.number), then)
        with reading(self.engine) as connection:
            gallery = _find(connection, name)
            found = [row.row for row in find(connection, gallery.number)]
        done = Deleted([], 0, 0, gallery.sequence)
        for start in range(0, len(found), step):
            with writing(self.engine, erases=True) as connection:
                gallery = _find(connection, name, lock=True)
                there = connection.execute(_THERE, {"rows": json.dumps(found[start : start + step])}).all()
                more = self._delete(connection, gallery, there, then)
            done = Deleted(
                done.ids + more.ids,
                done.vectors + more.vectors,
                done.thumbnails + more.thumbnails,
                more.sequence,
            )
        return done

    def _delete(
        self,
        connection: Connection,
        gallery: Row[Any],
        found: Sequence[Any],
        then: Callable[[Deleted], None] | None,
    ) -> Deleted:
        if not found:
            return Deleted([], 0, 0, gallery.sequence)
        vectors, thumbnails = _delete_rows(connection, [row.row for row in found])
        sequence = _count(connection, gallery, -len(found))
        done = Deleted([row.id for row in found], vectors, thumbnails, sequence)
        self._then(then, done)
        return done

    def _hide(self, name: str, then: Callable[[], None] | None) -> int:
        """Give a gallery a name that nobody can use; returns its number."""
        with writing(self.engine) as connection:
            number: int = _find(connection, name, lock=True).number
            connection.execute(delete(tables.aliases).where(_aliases.gallery == number))
            _change(connection, number, {"name": f"{_DELETED}{number}"})
            self._then(then)
        return number

    def _empty(self, number: int, step: int | None) -> None:
        """Delete a hidden gallery's items, others writing in between, and then the gallery."""
        size = step or _BATCH
        batch = select(_items.row).where(_items.gallery == number).order_by(_items.row).limit(size)
        left = True
        while left and not self._closing.is_set():
            with writing(self.engine, erases=True) as connection:
                rows = connection.scalars(batch).all()
                _delete_rows(connection, rows)
                left = len(rows) == size
                if not left:
                    connection.execute(delete(tables.galleries).where(_galleries.number == number))

    def _sweep(self) -> None:
        """Go on with what a crash has interrupted."""
        hidden = select(_galleries.number).where(_galleries.name.startswith(_DELETED))
        try:
            with reading(self.engine) as connection:
                numbers = connection.scalars(hidden).all()
            for number in numbers:
                self._with_room(partial(self._empty, number))
        except Exception:
            log.exception("a deleted gallery could not be removed from the disk; the next start tries again")

    def _damaged(self, finding: str) -> DatabaseDamaged:
        return DatabaseDamaged(database_name(self.engine), finding)


def _find(connection: Connection, name: str, *, lock: bool = False) -> Row[Any]:
    """The gallery's row. ``lock``: nobody else changes the gallery before this transaction ends."""
    row = connection.execute(_FIND_LOCKED if lock else _FIND, {"name": name}).one_or_none()
    if row is None:
        raise GalleryNotFound(name)
    return row


def _find_item(connection: Connection, name: str, item: str, query: Select[Any]) -> Row[Any]:
    gallery = _find(connection, name).number
    row = connection.execute(query, {"gallery": gallery, "id": item}).one_or_none()
    if row is None:
        raise ItemNotFound(name, item)
    return row


def _find_erasure(connection: Connection, id: str) -> Row[Any]:
    row = connection.execute(select(tables.erasures).where(_erasures.id == id)).one_or_none()
    if row is None:
        raise ErasureNotFound(id)
    return row


def _own_vectors(gallery: Row[Any]) -> Table:
    return _VECTOR_TABLES[gallery.uses_other_vectors]


def _unused_vectors(gallery: Row[Any]) -> Table:
    return _VECTOR_TABLES[not gallery.uses_other_vectors]


def _lacks(vectors: Table) -> ColumnElement[bool]:
    """Whether an item has no vector in that table."""
    return ~select(vectors.c.row).where(vectors.c.row == _items.row).exists()


def _change(connection: Connection, gallery: int, values: Mapping[str, object]) -> None:
    connection.execute(update(tables.galleries).where(_galleries.number == gallery).values(**values))


def _count(connection: Connection, gallery: Row[Any], more: int) -> int:
    """Note a change of the items and how many more there are now; returns the new sequence number."""
    sequence: int = gallery.sequence + 1
    values = {"gallery": gallery.number, "sequence": sequence, "items": gallery.items + more}
    connection.execute(_COUNT, values)
    return sequence


def _held(connection: Connection, gallery: int, ids: Collection[str]) -> Sequence[Any]:
    """The rows of those items that are there."""
    return connection.execute(_BY_ID, {"gallery": gallery, "ids": json.dumps(list(ids))}).all()


def _delete_rows(connection: Connection, rows: Sequence[int]) -> tuple[int, int]:
    """Delete items with vectors and thumbnails; returns the numbers of these two."""
    if not rows:
        return 0, 0
    numbers = {"rows": json.dumps(list(rows))}
    vectors = sum(connection.execute(_DELETE[table], numbers).rowcount for table in _VECTOR_TABLES)
    thumbnails = connection.execute(_DELETE[tables.thumbnails], numbers).rowcount
    connection.execute(_DELETE[tables.items], numbers)
    return vectors, thumbnails


def _insert_vectors(connection: Connection, table: Table, blobs: Sequence[tuple[int, bytes]]) -> None:
    if blobs:
        records = [{"row": row, "vector": blob, "crc32": zlib.crc32(blob)} for row, blob in blobs]
        connection.execute(_INSERT_VECTOR[table], records)


def _insert(connection: Connection, gallery: Row[Any], sequence: int, new: Sequence[NewItem]) -> dict[str, int]:
    """Insert items that are not there; returns their rows by id."""
    if not new:
        return {}
    records = [
        to_record(one.item) | {"gallery": gallery.number, "stored_at": to_micros(one.stored_at), "sequence": sequence}
        for one in new
    ]
    connection.execute(_INSERT_ITEM, records)
    added = connection.execute(_ADDED, {"gallery": gallery.number, "sequence": sequence})
    rows = {row.id: row.row for row in added}
    dtype = VectorType(gallery.vector_type).dtype
    blobs = [(rows[one.item.id], np.asarray(one.vector, dtype).tobytes()) for one in new]
    _insert_vectors(connection, _own_vectors(gallery), blobs)
    images = [(rows[one.item.id], one.thumbnail) for one in new if one.thumbnail is not None]
    if images and gallery.thumbnails:
        connection.execute(
            _INSERT_THUMBNAIL, [{"row": row, "image": image, "crc32": zlib.crc32(image, row)} for row, image in images]
        )
    return rows


def _filtered(
    connection: Connection, gallery: int, where: Filter, limit: int | None, after: str | None
) -> list[Row[Any]]:
    """Items that pass, by id."""
    query = select(tables.items).where(_items.gallery == gallery, *conditions(where)).order_by(_items.id)
    if not (where.attributes or where.exclude_attributes):
        query = query.limit(limit)
    if after is not None:
        query = query.where(_items.id > after)
    found: list[Row[Any]] = []
    with connection.execute(query, execution_options={"yield_per": _PAGE}) as rows:
        for row in rows:
            if limit is not None and len(found) >= limit:
                break
            if passes(row.attributes, where):
                found.append(row)
    return found


def _statuses(items: Sequence[NewItem], there: Collection[str]) -> list[WriteStatus]:
    seen = set(there)
    statuses: list[WriteStatus] = []
    for new in items:
        statuses.append("updated" if new.item.id in seen else "added")
        seen.add(new.item.id)
    return statuses
