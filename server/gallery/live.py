"""One gallery in memory: the index and the columns that a search needs, derived from the store and following it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.gallery.columns import DTYPES, Arrays, View, empty, encode, pack, unpack
from server.gallery.index import Rows, VectorIndex
from server.gallery.lists import InvertedLists
from server.gallery.types import Item, StoredVectors

__all__ = ["LiveGallery"]

_SMALLEST = 1024
_CHUNK = 65536


class LiveGallery:
    """What searches see of a gallery. Writers hand it each change after the store's commit, with the store's sequence.

    ``index`` holds the vectors already that belong to ``arrays``, which ``pack`` made.

    Threads: writers must come one at a time (``Galleries`` sees to it). Readers take a ``View`` and need no lock,
    because nothing that a view holds ever changes: rows are appended behind the end of all views, and a column in
    which something changes (a deletion, new facts) is copied first. A new view is published with one assignment, so a
    search sees a write whole or not at all.

    A deleted or replaced row stays as a dead one, invisible at once, until the gallery is made anew by ``compacted``.
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

    def view(self) -> View:
        """The gallery now."""
        return self._view

    def compacted(self, build: Callable[[], VectorIndex]) -> LiveGallery:
        """The same gallery without dead rows, over an index of its own. Writers may go on with this one meanwhile."""
        view = self._view
        rows = np.flatnonzero(view.alive)
        index = build()
        for start in range(0, len(rows), _CHUNK):
            index.add(view.index.vectors(rows[start : start + _CHUNK]))
        lists = None if view.lists is None else view.lists.compacted(view.index, view.alive)
        return LiveGallery(index, pack(view, rows), view.sequence, lists)

    def adopt(self, lists: InvertedLists | None) -> None:
        """Search with these lists, which were made for these rows, or exactly. Comes one at a time with the writes."""
        self._lists = lists
        self._publish(self._view.sequence)

    def put(self, items: Sequence[Item], rows: Rows, vectors: StoredVectors, sequence: int) -> None:
        """Append items with their rows in the store ``[n]`` and vectors ``[n, dimension]``.

        Of several with one id the last counts.
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
        """New facts for an item that is there; its vector stays."""
        place = self._place(item.id)
        row = self._columns["row"][place : place + 1]
        for name, values in encode([item], row, self._identities, self._cameras, self._attribute_sets).items():
            if self._columns[name][place] != values[0]:
                self._copied(name)[place] = values[0]
        self._publish(sequence)

    def delete(self, ids: Sequence[str], sequence: int) -> None:
        """Take items that are there out of sight."""
        _, places = self._ids.find(ids)
        self._drop(places[self._columns["alive"][places]], len(ids), sequence)

    def keep_only(self, rows: Rows, sequence: int) -> int:
        """Take out of sight what is not in one of these rows ``[n]`` of the store; returns how many items that was.

        Raises:
            ValueError: one of them is not here.
        """
        view = self._view
        gone = np.flatnonzero(view.alive & ~np.isin(view.row, rows))
        self._drop(gone, self._living - len(rows), sequence)
        return len(gone)

    def _drop(self, places: Rows, expected: int, sequence: int) -> None:
        if len(places) != expected:
            raise ValueError(f"expected {expected} items that are gone, found {len(places)} of them in memory")
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
            capacity = max(size, 2 * self._size, _SMALLEST)
            for name, old in self._columns.items():
                self._columns[name] = np.empty(capacity, old.dtype)
                self._columns[name][: self._size] = old[: self._size]

    def _publish(self, sequence: int) -> None:
        self._view = View(
            sequence=sequence,
            index=self._index,
            ids=self._ids,
            identities=self._identities,
            cameras=self._cameras,
            attribute_sets=self._attribute_sets,
            lists=self._lists,
            **{name: column[: self._size] for name, column in self._columns.items()},
        )
