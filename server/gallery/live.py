"""One gallery in memory: the index and the columns that a search needs, derived from the store and following it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.gallery.columns import DTYPES, AttributeSets, View, Vocabulary, encode
from server.gallery.index import VectorIndex
from server.gallery.types import Item, Vectors

__all__ = ["LiveGallery"]

_SMALLEST = 1024


class LiveGallery:
    """What searches see of a gallery. Writers hand it each change after the store's commit, with the store's sequence.

    Threads: writers must come one at a time (``Galleries`` sees to it). Readers take a ``View`` and need no lock,
    because nothing that a view holds ever changes: rows are appended behind the end of all views, and a column in
    which something changes (a deletion, new facts) is copied first. A new view is published with one assignment, so a
    search sees a write whole or not at all. The lock here covers that assignment and the table of positions, so that
    both are of one moment; it is held for no longer.

    A deleted or replaced row stays as a dead one, invisible at once, until the gallery is loaded anew.
    """

    def __init__(self, index: VectorIndex) -> None:
        self._index = index
        self._ids: list[str] = []
        self._positions: dict[str, int] = {}
        self._identities, self._cameras, self._attribute_sets = Vocabulary(), Vocabulary(), AttributeSets()
        self._columns: dict[str, NDArray[Any]] = {name: np.empty(0, dtype) for name, dtype in DTYPES.items()}
        self._lock = Lock()
        self._view = self._make_view(0)

    @property
    def sequence(self) -> int:
        """The store's sequence number of the last change that searches see."""
        return self._view.sequence

    @property
    def dead_share(self) -> float:
        """Share of rows that are deleted or replaced."""
        return 1 - len(self._positions) / len(self._ids) if self._ids else 0.0

    def view(self) -> View:
        """The gallery now."""
        return self._view

    def view_and_row(self, item: str | None) -> tuple[View, int | None]:
        """The gallery now and the row of an item in it, None where it has no such item."""
        with self._lock:
            return self._view, None if item is None else self._positions.get(item)

    def put(self, items: Sequence[Item], vectors: Vectors, sequence: int) -> None:
        """Append items with their vectors ``[n, dimension]``; of several with one id the last counts."""
        last = {item.id: number for number, item in enumerate(items)}
        kept = sorted(last.values())
        items, start = [items[number] for number in kept], len(self._ids)
        self._index.add(vectors[kept])
        added = encode(items, self._identities, self._cameras, self._attribute_sets)
        replaced = [self._positions[item.id] for item in items if item.id in self._positions]
        if replaced:
            self._copied("alive")[replaced] = False
        self._reserve(start + len(items))
        for name, values in added.items():
            self._columns[name][start : start + len(items)] = values
        self._ids.extend(item.id for item in items)
        self._publish(sequence, {item.id: row for row, item in enumerate(items, start)})

    def update(self, item: Item, sequence: int) -> None:
        """New facts for an item that is there; its vector stays."""
        row = self._positions[item.id]
        for name, values in encode([item], self._identities, self._cameras, self._attribute_sets).items():
            if self._columns[name][row] != values[0]:
                self._copied(name)[row] = values[0]
        self._publish(sequence, {})

    def delete(self, ids: Sequence[str], sequence: int) -> None:
        """Take items that are there out of sight."""
        self._copied("alive")[[self._positions[item] for item in ids]] = False
        self._publish(sequence, dict.fromkeys(ids))

    def _copied(self, name: str) -> NDArray[Any]:
        self._columns[name] = self._columns[name].copy()
        return self._columns[name]

    def _reserve(self, size: int) -> None:
        capacity = len(self._columns["alive"])
        if size > capacity:
            capacity = max(size, 2 * capacity, _SMALLEST)
            for name, old in self._columns.items():
                self._columns[name] = np.empty(capacity, old.dtype)
                self._columns[name][: len(old)] = old

    def _publish(self, sequence: int, moved: Mapping[str, int | None]) -> None:
        view = self._make_view(sequence)
        with self._lock:
            for item, row in moved.items():
                if row is None:
                    del self._positions[item]
                else:
                    self._positions[item] = row
            self._view = view

    def _make_view(self, sequence: int) -> View:
        return View(
            sequence=sequence,
            index=self._index,
            ids=self._ids,
            identities=self._identities,
            cameras=self._cameras,
            attribute_sets=self._attribute_sets,
            **{name: column[: len(self._ids)] for name, column in self._columns.items()},
        )
