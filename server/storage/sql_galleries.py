"""Galleries and aliases in SQL."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from threading import Event

from sqlalchemy import Connection, delete, insert, select
from sqlalchemy.exc import IntegrityError

from server.domain.errors import AliasExists, AliasNotFound, GalleryExists
from server.domain.types import Gallery
from server.storage import tables
from server.storage.mapping import to_gallery
from server.storage.protocol import DRAFT_SUFFIX, GALLERY_CHANGES, check_changes
from server.storage.sql_rows import ADDRESSABLE, DELETED_PREFIX, LISTED, change_gallery, delete_rows, find_gallery
from server.storage.sql_transactions import SqlTransactions
from server.storage.transactions import reading, writing

__all__ = ["SqlGalleries"]

_BATCH = 2000
"""Items of a deleted gallery that go in one transaction: others write between two."""

_galleries, _items, _aliases = tables.galleries.c, tables.items.c, tables.aliases.c

_log = logging.getLogger(__name__)


class SqlGalleries(SqlTransactions):
    """The part of ``SqlStore`` that holds galleries and aliases; see ``Store``."""

    _closing: Event

    def create_gallery(self, gallery: Gallery, on_commit: Callable[[], None] | None = None) -> None:
        try:
            with writing(self.engine) as connection:
                _require_no_alias(connection, gallery.name)
                connection.execute(
                    insert(tables.galleries).values(
                        name=gallery.name,
                        model=gallery.model,
                        fingerprint=gallery.fingerprint,
                        dimension=gallery.dimension,
                        created_at=gallery.created_at,
                        description=gallery.description,
                        retention_days=gallery.retention_days,
                        items=0,
                        sequence=0,
                        vector_type=gallery.vector_type.value,
                        thumbnails=gallery.thumbnails,
                    )
                )
                self._after_commit(on_commit)
        except IntegrityError:
            raise GalleryExists(gallery.name) from None

    def gallery(self, name: str) -> Gallery:
        with reading(self.engine) as connection:
            return to_gallery(find_gallery(connection, name))

    def galleries(self, *, limit: int | None = None, after: str | None = None) -> list[Gallery]:
        query = LISTED.order_by(_galleries.name).limit(limit)
        if after is not None:
            query = query.where(_galleries.name > after)
        with reading(self.engine) as connection:
            return [to_gallery(row) for row in connection.execute(query)]

    def drafts(self) -> list[str]:
        names = select(_galleries.name).where(_galleries.name.endswith(DRAFT_SUFFIX))
        with reading(self.engine) as connection:
            return list(connection.scalars(names))

    def rename_gallery(self, name: str, to: str, on_commit: Callable[[], None] | None = None) -> None:
        try:
            with writing(self.engine) as connection:
                _require_no_alias(connection, to)
                change_gallery(connection, find_gallery(connection, name, lock=True).number, {"name": to})
                self._after_commit(on_commit)
        except IntegrityError:
            raise GalleryExists(to) from None

    def update_gallery(self, name: str, changes: Mapping[str, object]) -> Gallery:
        check_changes(changes, GALLERY_CHANGES)
        with writing(self.engine) as connection:
            number = find_gallery(connection, name, lock=True).number
            if changes:
                change_gallery(connection, number, changes)
            return to_gallery(find_gallery(connection, name))

    def delete_gallery(self, name: str, on_commit: Callable[[], None] | None = None) -> None:
        number = self._with_room(lambda _: self._hide(name, on_commit))
        self._with_room(partial(self._empty, number))

    def settled_sequence(self, name: str) -> int:
        with writing(self.engine) as connection:
            return int(find_gallery(connection, name, lock=True).sequence)

    def sequence_numbers(self) -> dict[str, int]:
        with reading(self.engine) as connection:
            return {row.name: row.sequence for row in connection.execute(LISTED)}

    def set_alias(self, name: str, gallery: str) -> None:
        with writing(self.engine) as connection:
            if connection.execute(ADDRESSABLE.where(_galleries.name == name)).one_or_none():
                raise GalleryExists(name)
            number = find_gallery(connection, gallery).number
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

    def _hide(self, name: str, on_commit: Callable[[], None] | None) -> int:
        """Give a gallery a name that no request can use; return its number."""
        with writing(self.engine) as connection:
            number: int = find_gallery(connection, name, lock=True).number
            connection.execute(delete(tables.aliases).where(_aliases.gallery == number))
            change_gallery(connection, number, {"name": f"{DELETED_PREFIX}{number}"})
            self._after_commit(on_commit)
        return number

    def _empty(self, number: int, step: int | None) -> None:
        """Delete a hidden gallery's items in batches, between which others write, and then the gallery."""
        size = step or _BATCH
        batch = select(_items.row).where(_items.gallery == number).order_by(_items.row).limit(size)
        more = True
        while more and not self._closing.is_set():
            with writing(self.engine, erases=True) as connection:
                rows = connection.scalars(batch).all()
                delete_rows(connection, rows)
                more = len(rows) == size
                if not more:
                    connection.execute(delete(tables.galleries).where(_galleries.number == number))

    def _finish_deletions(self) -> None:
        """Finish deletions of galleries that a crash has interrupted."""
        hidden = select(_galleries.number).where(_galleries.name.startswith(DELETED_PREFIX))
        try:
            with reading(self.engine) as connection:
                numbers = connection.scalars(hidden).all()
            for number in numbers:
                self._with_room(partial(self._empty, number))
        except Exception:
            _log.exception("a deleted gallery could not be removed from the disk; the next start tries again")


def _require_no_alias(connection: Connection, name: str) -> None:
    if connection.execute(select(_aliases.name).where(_aliases.name == name)).one_or_none():
        raise AliasExists(name)
