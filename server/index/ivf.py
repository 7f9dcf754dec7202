"""Inverted lists: the rows of a large gallery that a search scans to find nearly all of the nearest ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from server.domain.types import Vectors
from server.index.protocol import Mask, Rows, VectorIndex

__all__ = ["InvertedLists", "ModalityLists", "SearchDepth", "unit_rows"]

_LIST_COST = 4
"""Cost of scanning a row of a list, relative to one of adjacent rows: rows of a list are scattered."""


@dataclass(frozen=True, slots=True)
class SearchDepth:
    """How much to scan: ``breadth`` rows of each modality in the nearest lists hold ``recall`` of the ``k`` best rows.

    ``recall`` is measured by ``ivf_builder``.
    """

    k: int
    breadth: int
    recall: float


@dataclass(frozen=True, slots=True)
class ModalityLists:
    """The lists of one modality: ``members`` ``[n]`` are rows, those of list l from ``starts[l]`` to ``starts[l+1]``.

    ``modality`` is its index. ``centroids`` ``[lists, D]`` are the means of the lists' vectors, of unit length, zeros
    for an empty list.
    """

    modality: int
    centroids: Vectors
    members: NDArray[np.int32]
    starts: Rows

    @property
    def sizes(self) -> Rows:
        """Number of rows of each list."""
        return np.diff(self.starts)

    @property
    def labels(self) -> Rows:
        """List of each of ``members``."""
        return np.repeat(np.arange(len(self.centroids)), self.sizes)

    def order(self, query: Vectors) -> Rows:
        """Return the lists, nearest first."""
        return np.argsort(-(self.centroids @ query), kind="stable")

    def nearest(self, query: Vectors, allowed: Mask, breadth: int) -> Iterator[NDArray[np.int32]]:
        """Yield the allowed rows of the nearest lists until there are ``breadth`` of them."""
        found = 0
        for number in self.order(query).tolist():
            rows = self.members[self.starts[number] : self.starts[number + 1]]
            rows = rows[allowed[rows]]
            yield rows
            found += len(rows)
            if found >= breadth:
                return

    def without_dead(self, index: VectorIndex, alive: Mask) -> ModalityLists:
        """Return the lists without dead rows; the centroids no longer depend on their vectors either."""
        living = alive[self.members]
        if living.all():
            return self
        labels, members, centroids = self.labels, self.members[living], self.centroids.copy()
        starts = np.searchsorted(labels[living], np.arange(len(centroids) + 1))
        for number in np.unique(labels[~living]).tolist():
            rows = members[starts[number] : starts[number + 1]]
            centroids[number] = index.vectors(rows.astype(np.int64)).sum(axis=0)
        return ModalityLists(self.modality, unit_rows(centroids), members, starts)


@dataclass(frozen=True, slots=True)
class InvertedLists:
    """An immutable inverted file over the rows 0…size-1 of an index, which holds the vectors.

    Each modality has its own lists: vectors of the other modality are all farther away, so common lists would hide
    matches across modalities. With a filter a search scans more lists, until as many rows pass as without one. Rows
    from ``size`` on are always scanned.

    Memory: 4 bytes a row, and the centroids.
    """

    size: int
    parts: tuple[ModalityLists, ...]
    depths: tuple[SearchDepth, ...]

    @property
    def recall(self) -> float:
        """Recall of the first depth."""
        return self.depths[0].recall

    def depth(self, k: int, queries: int, rows: int) -> SearchDepth | None:
        """Return how much to scan for the ``k`` best rows of so many queries; None: all of the ``rows`` that pass.

        None if recall is not measured for ``k``, or if the rows are too few to make lists worthwhile.
        """
        depth = next((depth for depth in self.depths if depth.k >= k), None)
        pays = depth is not None and rows > _LIST_COST * depth.breadth * len(self.parts) * queries
        return depth if pays else None

    def near(self, queries: Vectors, allowed: Mask, depth: SearchDepth, modality: int | None = None) -> Mask:
        """Return the allowed rows to scan: those near to one of ``queries`` ``[q, D]``, and those not in the lists.

        ``modality`` is the modality of all allowed rows, if they share one.
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
        """Return the lists without any trace of dead rows; this object if there are none."""
        parts = tuple(part.without_dead(index, alive) for part in self.parts)
        changed = any(new is not old for new, old in zip(parts, self.parts, strict=True))
        return replace(self, parts=parts) if changed else self

    def compacted(self, index: VectorIndex, alive: Mask) -> InvertedLists:
        """Return the lists for an index that holds only the living rows, in their order."""
        places = np.cumsum(alive, dtype=np.int32) - 1
        parts = self.without_dead(index, alive).parts
        moved = tuple(replace(part, members=places[part.members]) for part in parts)
        return InvertedLists(int(alive[: self.size].sum()), moved, self.depths)


def unit_rows(vectors: Vectors) -> Vectors:
    """Normalise each row ``[n, D]`` to unit length; zero rows stay zero."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Vectors = (vectors / np.where(norms > 0, norms, 1)).astype(np.float32)
    return unit
