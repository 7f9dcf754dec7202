"""One gallery in memory: the index and the columns that a search needs, derived from the store and following it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.domain.types import Item, StoredVectors
from server.gallery.columns import DTYPES, Arrays, GalleryView, empty, encode, pack, unpack
from server.index.ivf import InvertedLists
from server.index.protocol import Rows, VectorIndex
from server.storage.protocol import ItemChunk, LoadedGallery

__all__ = ["GalleryChange", "LiveGallery"]

_MIN_CAPACITY = 1024
_CHUNK = 65536


@dataclass(frozen=True, slots=True)
class GalleryChange:
    """One change of items that the store has committed as ``sequence``: items put, an item updated, or ids deleted."""

    sequence: int
    put: ItemChunk | None = None
    updated: Item | None = None
    deleted: Sequence[str] = ()


class LiveGallery:
    """The state of a gallery that searches see. Writers apply each change after the store's commit, in its order.

    ``index`` already holds the vectors that belong to ``arrays``, which ``pack`` made.

    Threads: writers must come one at a time, which ``GalleryHandle`` ensures. Readers take a ``GalleryView`` and need
    no lock, because a view never changes: rows are appended behind the end of all views, and a column is copied before
    anything in it changes (a deletion, new metadata). A new view is published with one assignment, so a search sees a
    write completely or not at all.

    A deleted or replaced row stays as a dead row, invisible at once, until ``compacted`` rebuilds the gallery.
    """

    def __init__(
        self,
        index: VectorIndex,
        arrays: Arrays | None = None,
        sequence: int = 0,
        lists: InvertedLists | None = None,
    ) -> None:
        arrays = empty() if arrays is None else arrays
        self._index, self._lists = index, lists
        self._ids, self._identities, self._cameras, self._attribute_sets = unpack(arrays)
        self._columns: dict[str, NDArray[Any]] = {name: arrays[name] for name in DTYPES}
        self._size, self._living = len(arrays["alive"]), int(arrays["alive"].sum())
        self._publish(sequence)

    @property
    def sequence(self) -> int:
        """The store's sequence number of the last change that searches see."""
        return self._view.sequence

    @property
    def dead_share(self) -> float:
        """Share of rows that are deleted or replaced."""
        return 1 - self._living / self._size if self._size else 0.0

    def view(self) -> GalleryView:
        """Return the gallery as it is now."""
        return self._view

    def compacted(self, build: Callable[[], VectorIndex]) -> LiveGallery:
        """Return the same gallery without dead rows, over a new index. Writers may continue with this one meanwhile."""
        view = self._view
        rows = np.flatnonzero(view.alive)
        index = build()
        for start in range(0, len(rows), _CHUNK):
            index.add(view.index.vectors(rows[start : start + _CHUNK]))
        lists = None if view.lists is None else view.lists.compacted(view.index, view.alive)
        return LiveGallery(index, pack(view, rows), view.sequence, lists)

    def set_lists(self, lists: InvertedLists | None) -> None:
        """Search with these lists, built for these rows, or exactly. Counts as a write: one at a time."""
        self._lists = lists
        self._publish(self._view.sequence)

    def apply(self, change: GalleryChange) -> None:
        """Apply a change of the store."""
        if change.put is not None:
            self.put(change.put.items, change.put.rows, change.put.vectors, change.sequence)
        elif change.updated is not None:
            self.update(change.updated, change.sequence)
        else:
            self.delete(change.deleted, change.sequence)

    def follow(self, loaded: LoadedGallery, advance: Callable[[int], None] = lambda _: None) -> int:
        """Take over what the store has loaded; return the number of items that were deleted there.

        ``advance`` is called with the number of items of each chunk.
        """
        for chunk in loaded.chunks:
            self.put(chunk.items, chunk.rows, chunk.vectors, loaded.sequence)
            advance(len(chunk.items))
        return self.keep_only(loaded.rows(), loaded.sequence)

    def put(self, items: Sequence[Item], rows: Rows, vectors: StoredVectors, sequence: int) -> None:
        """Append items with their rows in the store ``[n]`` and vectors ``[n, dimension]``.

        Of several items with one id the last one counts.
        """
        last = {item.id: number for number, item in enumerate(items)}
        kept = sorted(last.values())
        items, start = [items[number] for number in kept], self._size
        _, replaced = self._ids.find([item.id for item in items])
        replaced = replaced[self._columns["alive"][replaced]]
        if len(replaced):
            self._copied("alive")[replaced] = False
        self._index.add(vectors[kept])
        self._reserve(start + len(items))
        added = encode(items, rows[kept], self._identities, self._cameras, self._attribute_sets)
        for name, values in added.items():
            self._columns[name][start : start + len(items)] = values
        self._ids.append([item.id for item in items])
        self._size, self._living = start + len(items), self._living + len(items) - len(replaced)
        self._publish(sequence)

    def update(self, item: Item, sequence: int) -> None:
        """Replace the metadata of an existing item; its vector stays."""
        place = self._place(item.id)
        row = self._columns["row"][place : place + 1]
        for name, values in encode([item], row, self._identities, self._cameras, self._attribute_sets).items():
            if self._columns[name][place] != values[0]:
                self._copied(name)[place] = values[0]
        self._publish(sequence)

    def delete(self, ids: Sequence[str], sequence: int) -> None:
        """Hide existing items."""
        _, places = self._ids.find(ids)
        self._drop(places[self._columns["alive"][places]], len(ids), sequence)

    def keep_only(self, rows: Rows, sequence: int) -> int:
        """Hide every item that is in none of these rows ``[n]`` of the store; return the number of hidden items.

        Raises:
            ValueError: one of the rows is missing here.
        """
        view = self._view
        missing = np.flatnonzero(view.alive & ~np.isin(view.row, rows))
        self._drop(missing, self._living - len(rows), sequence)
        return len(missing)

    def _drop(self, places: Rows, expected: int, sequence: int) -> None:
        if len(places) != expected:
            raise ValueError(f"expected {expected} deleted items, found {len(places)} of them in memory")
        if len(places):
            self._copied("alive")[places] = False
        self._living -= len(places)
        self._publish(sequence)

    def _place(self, item: str) -> int:
        place = self._view.row_of(item)
        if place is None:
            raise ValueError(f"item {item} is not in memory")
        return place

    def _copied(self, name: str) -> NDArray[Any]:
        self._columns[name] = self._columns[name].copy()
        return self._columns[name]

    def _reserve(self, size: int) -> None:
        if size > len(self._columns["alive"]):
            capacity = max(size, 2 * self._size, _MIN_CAPACITY)
            for name, old in self._columns.items():
                self._columns[name] = np.empty(capacity, old.dtype)
                self._columns[name][: self._size] = old[: self._size]

    def _publish(self, sequence: int) -> None:
        self._view = GalleryView(
            sequence=sequence,
            index=self._index,
            ids=self._ids,
            identities=self._identities,
            cameras=self._cameras,
            attribute_sets=self._attribute_sets,
            lists=self._lists,
            **{name: column[: self._size] for name, column in self._columns.items()},
        )
