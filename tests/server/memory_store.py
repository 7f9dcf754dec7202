"""An in-memory store, the reference for ``SqlStore``."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from threading import RLock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.domain.errors import (
    AliasExists,
    AliasNotFound,
    ErasureNotFound,
    GalleryExists,
    GalleryNotFound,
    ItemNotFound,
)
from server.domain.filters import matches
from server.domain.types import Erasure, Filter, Gallery, Item, NewItem, Reembedding, Vectors, WriteStatus
from server.storage.protocol import (
    DRAFT_SUFFIX,
    GALLERY_CHANGES,
    ITEM_CHANGES,
    DeleteResult,
    ItemChunk,
    LoadedGallery,
    PendingReembedding,
    PutResult,
    check_changes,
)

__all__ = ["MemoryStore"]


@dataclass
class _Row:
    """An item with its row and the sequence number of its last change."""

    row: int
    new: NewItem
    sequence: int
    renewed: Vectors | None = None


@dataclass
class _Held:
    gallery: Gallery
    sequence: int = 0
    renewal: Reembedding | None = None
    items: dict[str, _Row] = field(default_factory=dict)


class MemoryStore:
    """A ``Store`` in dictionaries."""

    def __init__(self) -> None:
        self._held: dict[str, _Held] = {}
        self._aliases: dict[str, _Held] = {}
        self._erasures: dict[str, Erasure] = {}
        self._rows = 0
        self._lock = RLock()

    def create_gallery(self, gallery: Gallery, on_commit: Callable[[], None] | None = None) -> None:
        with self._lock:
            self._require_free(gallery.name)
            self._held[gallery.name] = _Held(gallery)
            if on_commit:
                on_commit()

    def gallery(self, name: str) -> Gallery:
        with self._lock:
            held = self._find(name)
            return replace(held.gallery, items=len(held.items))

    def galleries(self, *, limit: int | None = None, after: str | None = None) -> list[Gallery]:
        with self._lock:
            names = sorted(name for name in self._listed() if after is None or name > after)
            return [self.gallery(name) for name in names[:limit]]

    def drafts(self) -> list[str]:
        with self._lock:
            return list(self._held.keys() - self._listed().keys())

    def rename_gallery(self, name: str, to: str, on_commit: Callable[[], None] | None = None) -> None:
        with self._lock:
            held = self._find(name)
            self._require_free(to)
            del self._held[name]
            held.gallery = replace(held.gallery, name=to)
            self._held[to] = held
            if on_commit:
                on_commit()

    def update_gallery(self, name: str, changes: Mapping[str, Any]) -> Gallery:
        check_changes(changes, GALLERY_CHANGES)
        with self._lock:
            held = self._find(name)
            held.gallery = replace(held.gallery, **changes)
            return self.gallery(name)

    def delete_gallery(self, name: str, on_commit: Callable[[], None] | None = None) -> None:
        with self._lock:
            removed = self._find(name)
            del self._held[name]
            self._aliases = {alias: held for alias, held in self._aliases.items() if held is not removed}
            if on_commit:
                on_commit()

    def settled_sequence(self, name: str) -> int:
        with self._lock:
            return self._find(name).sequence

    def sequence_numbers(self) -> dict[str, int]:
        with self._lock:
            return {name: held.sequence for name, held in self._listed().items()}

    def set_alias(self, name: str, gallery: str) -> None:
        with self._lock:
            if name in self._held:
                raise GalleryExists(name)
            self._aliases[name] = self._find(gallery)

    def remove_alias(self, name: str) -> None:
        with self._lock:
            if self._aliases.pop(name, None) is None:
                raise AliasNotFound(name)

    def aliases(self) -> dict[str, str]:
        with self._lock:
            return {alias: held.gallery.name for alias, held in sorted(self._aliases.items())}

    def put(
        self, name: str, items: Sequence[NewItem], on_commit: Callable[[PutResult], None] | None = None
    ) -> PutResult:
        with self._lock:
            held = self._find(name)
            held.sequence += 1
            dtype = held.gallery.vector_type.dtype
            statuses: list[WriteStatus] = []
            for new in items:
                there = held.items.pop(new.item.id, None)  # a replaced item moves to the end
                statuses.append("added" if there is None else "updated")
                self._rows += 1
                kept = replace(
                    new,
                    vector=np.array(new.vector, dtype).astype(np.float32),
                    thumbnail=new.thumbnail if held.gallery.thumbnails else None,
                )
                held.items[new.item.id] = _Row(self._rows, kept, held.sequence)
            rows = np.array([held.items[new.item.id].row for new in items], np.int64)
            put = PutResult(statuses, rows, held.sequence)
            if on_commit:
                on_commit(put)
            return put

    def item(self, name: str, item: str) -> Item:
        with self._lock:
            return self._find_item(name, item).new.item

    def items(self, name: str, where: Filter, *, limit: int, after: str | None = None) -> list[Item]:
        with self._lock:
            found = [row.new.item for row in self._find(name).items.values() if matches(row.new.item, where)]
            found.sort(key=lambda item: item.id)
            return [item for item in found if after is None or item.id > after][:limit]

    def items_by_id(self, name: str, ids: Collection[str]) -> dict[str, Item]:
        with self._lock:
            held = self._find(name).items
            return {id: held[id].new.item for id in ids if id in held}

    def content_hashes(self, name: str, ids: Collection[str]) -> dict[str, str]:
        with self._lock:
            held = self._find(name).items
            found = {id: held[id].new.item.content for id in ids if id in held}
            return {id: content for id, content in found.items() if content is not None}

    def update_item(
        self, name: str, item: str, changes: Mapping[str, Any], on_commit: Callable[[Item, int], None] | None = None
    ) -> tuple[Item, int]:
        check_changes(changes, ITEM_CHANGES)
        with self._lock:
            held, row = self._find(name), self._find_item(name, item)
            held.sequence += 1
            changed = replace(row.new, item=replace(row.new.item, **changes))
            held.items[item] = replace(row, new=changed, sequence=held.sequence)
            if on_commit:
                on_commit(changed.item, held.sequence)
            return changed.item, held.sequence

    def delete_item(
        self, name: str, item: str, on_commit: Callable[[DeleteResult], None] | None = None
    ) -> DeleteResult:
        with self._lock:
            self._find_item(name, item)
            return self._delete(self._find(name), [item], on_commit)

    def delete_items(
        self, name: str, where: Filter, on_commit: Callable[[DeleteResult], None] | None = None
    ) -> DeleteResult:
        with self._lock:
            held = self._find(name)
            removed = [id for id, row in held.items.items() if matches(row.new.item, where)]
            return self._delete(held, removed, on_commit)

    def delete_stored_before(
        self, name: str, time: datetime, on_commit: Callable[[DeleteResult], None] | None = None
    ) -> DeleteResult:
        with self._lock:
            held = self._find(name)
            removed = [id for id, row in held.items.items() if row.new.stored_at < time]
            return self._delete(held, removed, on_commit)

    def thumbnail(self, name: str, item: str) -> bytes:
        with self._lock:
            image = self._find_item(name, item).new.thumbnail
        if image is None:
            raise ItemNotFound(name, item)
        return image

    def vector(self, name: str, item: str) -> tuple[Item, Vectors]:
        with self._lock:
            new = self._find_item(name, item).new
            return new.item, new.vector

    @contextmanager
    def dump(self, name: str) -> Iterator[tuple[Gallery, Iterator[NewItem]]]:
        with self._lock:
            found = self.gallery(name), iter([row.new for row in self._find(name).items.values()])
        yield found

    def begin_reembedding(self, name: str, renewal: Reembedding) -> None:
        with self._lock:
            if self._find(name).renewal != renewal:
                self.end_reembedding(name)
            self._find(name).renewal = renewal

    def reembeddings(self) -> dict[str, Reembedding]:
        with self._lock:
            return {name: held.renewal for name, held in self._listed().items() if held.renewal is not None}

    def count_without_thumbnail(self, name: str) -> int:
        with self._lock:
            return sum(row.new.thumbnail is None for row in self._find(name).items.values())

    def pending_reembedding(self, name: str, *, limit: int, after: int = 0) -> list[PendingReembedding]:
        with self._lock:
            rows = sorted(self._find(name).items.values(), key=lambda row: row.row)
        found = [row for row in rows if row.renewed is None and row.row > after]
        return [PendingReembedding(row.row, row.new.item, row.new.thumbnail) for row in found[:limit]]

    def store_reembedded(self, name: str, vectors: Mapping[int, Vectors]) -> None:
        with self._lock:
            held = self._find(name)
            for row in held.items.values():
                if row.row in vectors and row.renewed is None:
                    row.renewed = vectors[row.row].astype(held.gallery.vector_type.dtype).astype(np.float32)

    def switch_model(self, name: str, on_commit: Callable[[], None] | None = None) -> None:
        with self._lock:
            held, renewal = self._find(name), self._find(name).renewal
            if renewal is None or any(row.renewed is None for row in held.items.values()):
                raise ValueError(f"gallery {name} has items without a vector of the other model")
            for row in held.items.values():
                row.new, row.renewed = replace(row.new, vector=row.renewed), row.new.vector  # type: ignore[arg-type]
            held.gallery = replace(
                held.gallery, model=renewal.model, fingerprint=renewal.fingerprint, dimension=renewal.dimension
            )
            if on_commit:
                on_commit()

    def end_reembedding(self, name: str) -> None:
        with self._lock:
            held = self._find(name)
            held.renewal = None
            for row in held.items.values():
                row.renewed = None

    @contextmanager
    def load(self, name: str, since: int = 0, *, reembedded: bool = False) -> Iterator[LoadedGallery]:
        with self._lock:
            held = self._find(name)
            sequence = held.sequence
            held_rows = sorted(held.items.values(), key=lambda row: row.row)
        changed = [row for row in held_rows if row.sequence > since]
        shown = [row.renewed if reembedded else row.new.vector for row in changed]
        vectors = np.array(shown, held.gallery.vector_type.dtype)
        chunk = ItemChunk(_row_numbers(changed), [row.new.item for row in changed], vectors)
        yield LoadedGallery(sequence, iter([chunk] if changed else []), lambda: _row_numbers(held_rows))

    def count_remaining(self, name: str, ids: Collection[str]) -> int:
        return len(self.items_by_id(name, ids))

    def record_erasure(self, erasure: Erasure) -> None:
        with self._lock:
            self._erasures[erasure.id] = erasure

    def erasure(self, id: str) -> Erasure:
        with self._lock:
            if id not in self._erasures:
                raise ErasureNotFound(id)
            return self._erasures[id]

    def erasures(
        self, *, limit: int, after: str | None = None, galleries: Collection[str] | None = None
    ) -> list[Erasure]:
        with self._lock:
            newest = sorted(self._erasures.values(), key=lambda one: (one.at, one.id), reverse=True)
            if after is not None:
                newest = newest[newest.index(self.erasure(after)) + 1 :]
            return [one for one in newest if galleries is None or one.gallery in galleries][:limit]

    def check(self) -> None:
        pass

    def scrub(self) -> bool:
        return True

    def close(self) -> None:
        pass

    def _delete(self, held: _Held, ids: list[str], on_commit: Callable[[DeleteResult], None] | None) -> DeleteResult:
        if not ids:
            return DeleteResult([], 0, 0, held.sequence)
        removed = [held.items.pop(id) for id in ids]
        held.sequence += 1
        images = sum(row.new.thumbnail is not None for row in removed)
        deleted = DeleteResult(sorted(ids), len(removed), images, held.sequence)
        if on_commit:
            on_commit(deleted)
        return deleted

    def _listed(self) -> dict[str, _Held]:
        return {name: held for name, held in self._held.items() if not name.endswith(DRAFT_SUFFIX)}

    def _require_free(self, name: str) -> None:
        if name in self._held:
            raise GalleryExists(name)
        if name in self._aliases:
            raise AliasExists(name)

    def _find(self, name: str) -> _Held:
        if name not in self._held:
            raise GalleryNotFound(name)
        return self._held[name]

    def _find_item(self, name: str, item: str) -> _Row:
        held = self._find(name)
        if item not in held.items:
            raise ItemNotFound(name, item)
        return held.items[item]


def _row_numbers(rows: Sequence[_Row]) -> NDArray[np.int64]:
    return np.array([row.row for row in rows], np.int64)
