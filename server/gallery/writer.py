"""Writes of items: first to the store, then to memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

from server.domain.errors import GalleryNotFound, ItemNotFound
from server.domain.types import Item, NewItem, WriteStatus
from server.gallery.handle import GalleryHandle, GalleryHandles
from server.gallery.live_gallery import GalleryChange
from server.gallery.loader import GalleryLoader
from server.gallery.query import checked_vectors
from server.storage.protocol import ItemChunk, PutResult, Store

__all__ = ["GalleryWriter"]

T = TypeVar("T")


class GalleryWriter:
    """Adds and changes items. A write returns when the store has it on disk and searches see it."""

    def __init__(self, handles: GalleryHandles, store: Store, loader: GalleryLoader) -> None:
        self._handles, self._store, self._loader = handles, store, loader

    def put(self, name: str, items: Sequence[NewItem], *, fingerprint: str) -> list[WriteStatus]:
        """Store all items or none. An item whose id exists (or comes earlier in ``items``) is replaced as a whole.

        Raises:
            ModelMismatch: the gallery is bound to another fingerprint or dimension.
            ValueError: a vector is not finite or not of unit length, or a time has no time zone.
            StorageFull: the disk has no room.
        """

        def put(handle: GalleryHandle) -> list[WriteStatus]:
            vectors = checked_vectors(handle.gallery, fingerprint, [new.vector for new in items])
            if not items:
                return []
            stored = items if handle.gallery.thumbnails else [replace(new, thumbnail=None) for new in items]

            def on_commit(result: PutResult) -> None:
                chunk = ItemChunk(result.rows, [new.item for new in stored], vectors)
                handle.apply(GalleryChange(result.sequence, put=chunk))

            with self.in_step(handle):
                return self._store.put(name, stored, on_commit).statuses

        return self.write(name, put)

    def update_item(self, name: str, id: str, changes: Mapping[str, object]) -> Item:
        """Set ``identity``, ``camera``, ``captured_at`` or ``attributes``. Raises ValueError for any other field."""

        def update(handle: GalleryHandle) -> Item:
            def on_commit(item: Item, sequence: int) -> None:
                handle.apply(GalleryChange(sequence, updated=item))

            with self.in_step(handle):
                return self._store.update_item(name, id, changes, on_commit)[0]

        return self.write(name, update)

    def write(self, name: str, write: Callable[[GalleryHandle], T]) -> T:
        """Run ``write`` on a gallery; repeat it if another gallery took the name while it waited."""
        while True:
            handle = self._handles.find(name)
            try:
                return write(handle)
            except GalleryNotFound:
                if self._handles.by_name.get(name, handle) is handle:
                    raise

    @contextmanager
    def in_step(self, handle: GalleryHandle) -> Iterator[None]:
        """Leave memory in step with the store, whatever happens during a write."""
        with handle.writing():
            if handle.live is None:
                self._loader.reload(handle)
            handle.ready()
            try:
                yield
            except (GalleryNotFound, ItemNotFound):  # the store has not changed anything
                raise
            except BaseException:
                self._loader.catch_up(handle)
                raise
            if handle.live is None:
                self._loader.reload(handle)
