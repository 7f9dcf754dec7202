"""Inverted lists: which rows of a large gallery to look at, to find nearly all of what is nearest in the whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from server.gallery.index import Mask, Rows, VectorIndex
from server.gallery.types import Vectors

__all__ = ["Depth", "InvertedLists", "Part", "unit_rows"]

_WORTH = 4
"""How much dearer a row of a list is than one of many in a row: the lists lie scattered."""


@dataclass(frozen=True, slots=True)
class Depth:
    """Among the ``breadth`` rows of each modality that the nearest lists hold is this share of the ``k`` best ones.

    ``recall`` is measured; see ``listmaking``.
    """

    k: int
    breadth: int
    recall: float


@dataclass(frozen=True, slots=True)
class Part:
    """The rows of one modality in lists: ``members`` ``[n]``, those of list l from ``starts[l]`` to ``starts[l+1]``.

    ``modality`` is its number. ``centroids`` ``[lists, D]`` are the means of what the lists hold, of unit length, and
    zeros for an empty list.
    """

    modality: int
    centroids: Vectors
    members: NDArray[np.int32]
    starts: Rows

    @property
    def sizes(self) -> Rows:
        """How many rows each list holds."""
        return np.diff(self.starts)

    @property
    def labels(self) -> Rows:
        """The list of each of ``members``."""
        return np.repeat(np.arange(len(self.centroids)), self.sizes)

    def order(self, query: Vectors) -> Rows:
        """The lists, nearest first."""
        return np.argsort(-(self.centroids @ query), kind="stable")

    def nearest(self, query: Vectors, allowed: Mask, breadth: int) -> Iterator[NDArray[np.int32]]:
        """The allowed rows of the nearest lists, until there are ``breadth`` of them."""
        found = 0
        for number in self.order(query).tolist():
            rows = self.members[self.starts[number] : self.starts[number + 1]]
            rows = rows[allowed[rows]]
            yield rows
            found += len(rows)
            if found >= breadth:
                return

    def without_dead(self, index: VectorIndex, alive: Mask) -> Part:
        """The same without dead rows: neither do centroids have anything of their vectors any more."""
        living = alive[self.members]
        if living.all():
            return self
        labels, members, centroids = self.labels, self.members[living], self.centroids.copy()
        starts = np.searchsorted(labels[living], np.arange(len(centroids) + 1))
        for number in np.unique(labels[~living]).tolist():
            rows = members[starts[number] : starts[number + 1]]
            centroids[number] = index.vectors(rows.astype(np.int64)).sum(axis=0)
        return Part(self.modality, unit_rows(centroids), members, starts)


@dataclass(frozen=True, slots=True)
class InvertedLists:
    """An inverted file over the rows 0…size-1 of an index, which goes on holding the vectors. It never changes.

    Each modality has lists of its own: those of the other one are all farther than its own, so that in common lists
    nobody would be found across modalities. A filter makes the search go through more lists, until as many rows pass
    it as without. Rows behind ``size`` are all looked at.

    Memory: 4 bytes a row, and the centroids.
    """

    size: int
    parts: tuple[Part, ...]
    depths: tuple[Depth, ...]

    @property
    def recall(self) -> float:
        """That of the first depth."""
        return self.depths[0].recall

    def depth(self, k: int, queries: int, rows: int) -> Depth | None:
        """How much to look at for the ``k`` best rows for so many queries; None: at all of the ``rows`` that may be.

        None where nothing is measured for as many as ``k``, and where the rows are so few that it would not pay.
        """
        depth = next((depth for depth in self.depths if depth.k >= k), None)
        pays = depth is not None and rows > _WORTH * depth.breadth * len(self.parts) * queries
        return depth if pays else None

    def near(self, queries: Vectors, allowed: Mask, depth: Depth, modality: int | None = None) -> Mask:
        """Which of the allowed rows to look at: those that are near to one of ``queries`` ``[q, D]``, and new ones.

        ``modality`` is that of all that are allowed, if they are of one.
        """
        near = np.zeros(len(allowed), np.bool_)
        near[self.size :] = allowed[self.size :]
        for part in self.parts:
            if modality not in (None, part.modality):
                continue
            for query in queries:
                for rows in part.nearest(query, allowed, depth.breadth):
                    near[rows] = True
        return near

    def without_dead(self, index: VectorIndex, alive: Mask) -> InvertedLists:
        """The same, with nothing left in it of rows that are dead; this object where there are none."""
        parts = tuple(part.without_dead(index, alive) for part in self.parts)
        changed = any(new is not old for new, old in zip(parts, self.parts, strict=True))
        return replace(self, parts=parts) if changed else self

    def compacted(self, index: VectorIndex, alive: Mask) -> InvertedLists:
        """The lists of the index that holds only the living rows, in their order."""
        places = np.cumsum(alive, dtype=np.int32) - 1
        parts = self.without_dead(index, alive).parts
        moved = tuple(replace(part, members=places[part.members]) for part in parts)
        return InvertedLists(int(alive[: self.size].sum()), moved, self.depths)


def unit_rows(vectors: Vectors) -> Vectors:
    """Each row ``[n, D]`` made unit length; one of zeros stays."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Vectors = (vectors / np.where(norms > 0, norms, 1)).astype(np.float32)
    return unit
