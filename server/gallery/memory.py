"""A store without a disk: the oracle that tests hold ``SqlStore`` to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from threading import RLock
from typing import Any

import numpy as np

from server.errors import GalleryExists, GalleryNotFound, ItemNotFound
from server.gallery.filters import matches
from server.gallery.store import GALLERY_CHANGES, ITEM_CHANGES, Chunk, check_changes
from server.gallery.types import Filter, Gallery, Item, NewItem, Vectors, WriteStatus

__all__ = ["MemoryStore"]


@dataclass
class _Held:
    gallery: Gallery
    sequence: int = 0
    items: dict[str, NewItem] = field(default_factory=dict)


class MemoryStore:
    """A ``Store`` in dictionaries; it lasts as long as the object."""

    def __init__(self) -> None:
        self._held: dict[str, _Held] = {}
        self._lock = RLock()

    def create_gallery(self, gallery: Gallery) -> None:
        with self._lock:
            if gallery.name in self._held:
                raise GalleryExists(gallery.name)
            self._held[gallery.name] = _Held(gallery)

    def gallery(self, name: str) -> Gallery:
        with self._lock:
            held = self._find(name)
            return replace(held.gallery, items=len(held.items))

    def galleries(self, *, limit: int | None = None, after: str | None = None) -> list[Gallery]:
        with self._lock:
            names = sorted(name for name in self._held if after is None or name > after)
            return [self.gallery(name) for name in names[:limit]]

    def update_gallery(self, name: str, changes: Mapping[str, Any]) -> Gallery:
        check_changes(changes, GALLERY_CHANGES)
        with self._lock:
            held = self._find(name)
            held.gallery = replace(held.gallery, **changes)
            return self.gallery(name)

    def delete_gallery(self, name: str) -> None:
        with self._lock:
            self._find(name)
            del self._held[name]

    def sequences(self) -> dict[str, int]:
        with self._lock:
            return {name: held.sequence for name, held in self._held.items()}

    def put(self, name: str, items: Sequence[NewItem]) -> tuple[list[WriteStatus], int]:
        with self._lock:
            held = self._find(name)
            statuses: list[WriteStatus] = []
            for new in items:
                there = held.items.pop(new.item.id, None)  # a replaced item moves to the end
                statuses.append("added" if there is None else "updated")
                held.items[new.item.id] = replace(new, vector=np.array(new.vector, np.float32))
            held.sequence += 1
            return statuses, held.sequence

    def item(self, name: str, item: str) -> Item:
        with self._lock:
            return self._find_item(name, item).item

    def items(self, name: str, where: Filter, *, limit: int, after: str | None = None) -> list[Item]:
        with self._lock:
            found = [new.item for new in self._find(name).items.values() if matches(new.item, where)]
            found.sort(key=lambda item: item.id)
            return [item for item in found if after is None or item.id > after][:limit]

    def update_item(self, name: str, item: str, changes: Mapping[str, Any]) -> tuple[Item, int]:
        check_changes(changes, ITEM_CHANGES)
        with self._lock:
            held, new = self._find(name), self._find_item(name, item)
            held.items[item] = replace(new, item=replace(new.item, **changes))
            held.sequence += 1
            return held.items[item].item, held.sequence

    def delete_item(self, name: str, item: str) -> int:
        with self._lock:
            held = self._find(name)
            self._find_item(name, item)
            del held.items[item]
            held.sequence += 1
            return held.sequence

    def delete_items(self, name: str, where: Filter) -> tuple[list[str], int]:
        with self._lock:
            held = self._find(name)
            return self._delete(held, [new.item.id for new in held.items.values() if matches(new.item, where)])

    def delete_stored_before(self, name: str, moment: datetime) -> tuple[list[str], int]:
        with self._lock:
            held = self._find(name)
            return self._delete(held, [new.item.id for new in held.items.values() if new.stored_at < moment])

    def thumbnail(self, name: str, item: str) -> bytes:
        with self._lock:
            image = self._find_item(name, item).thumbnail
        if image is None:
            raise ItemNotFound(name, item)
        return image

    def vector(self, name: str, item: str) -> tuple[Item, Vectors]:
        with self._lock:
            new = self._find_item(name, item)
            return new.item, new.vector

    @contextmanager
    def load(self, name: str) -> Iterator[tuple[int, Iterator[Chunk]]]:
        with self._lock:
            held = self._find(name)
            new = list(held.items.values())
            sequence = held.sequence
        chunk = [Chunk([one.item for one in new], np.stack([one.vector for one in new]))] if new else []
        yield sequence, iter(chunk)

    def close(self) -> None:
        pass

    def _delete(self, held: _Held, ids: list[str]) -> tuple[list[str], int]:
        for item in ids:
            del held.items[item]
        held.sequence += bool(ids)
        return sorted(ids), held.sequence

    def _find(self, name: str) -> _Held:
        if name not in self._held:
            raise GalleryNotFound(name)
        return self._held[name]

    def _find_item(self, name: str, item: str) -> NewItem:
        held = self._find(name)
        if item not in held.items:
            raise ItemNotFound(name, item)
        return held.items[item]
