"""Pairs of items that are nearly the same, found by comparing every item with every other, a part at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from server.gallery.columns import View
from server.gallery.index import Mask, Rows, VectorIndex, inner_products
from server.gallery.types import Filter, Item

__all__ = ["Pair", "PairPlace", "Pairs", "find_pairs"]

_COMPARISONS = 2**25
"""Of one call, about: half a second of one core at 512 dimensions."""
_CHUNK = 4096


@dataclass(frozen=True, slots=True)
class Pair:
    """Two items, the one that was stored first, and the cosine of their vectors.

    ``identical``: the same file, or the same ready-made vector, was uploaded for both, as far as is known.
    """

    first: Item
    second: Item
    score: float
    identical: bool = False


@dataclass(frozen=True, slots=True)
class PairPlace:
    """A place among all pairs: before those of the store's row ``first`` with one behind its row ``second``."""

    first: int
    second: int


@dataclass(frozen=True, slots=True)
class Pairs:
    """A part of the pairs. ``end`` is the place to go on from; None where none is left.

    ``walked`` of the ``items`` that pass the filter have been compared with all that come after them.
    """

    pairs: tuple[Pair, ...]
    items: int
    walked: int
    end: PairPlace | None


def find_pairs(
    view: View,
    where: Filter,
    min_score: float,
    limit: int,
    start: PairPlace | None = None,
    comparisons: int = _COMPARISONS,
) -> Pairs:
    """The first pairs from a place on, of two items that pass and whose cosine is at least ``min_score``.

    They come in the order in which the items were stored: what is written between two calls moves no pair of other
    items. A call gives ``limit`` pairs at most, and makes about ``comparisons``, or those of one item with all others
    if these are more; so it may give none although some are left. Scores are exact.
    """
    start = start or PairPlace(0, 0)
    min_score = float(np.float32(min_score))  # scores are float32: a limit between two of them must not divide them
    rows = np.flatnonzero(view.allowed(where))
    rows = rows[np.argsort(view.row[rows], kind="stable")]
    stored = view.row[rows]
    walked = int(np.searchsorted(stored, start.first))
    left, count = rows[walked:], max(1, comparisons // max(1, len(rows) - walked))
    near = _near(view.index, left[:count], left, min_score)

    found: list[Pair] = []
    for number, row in enumerate(left[:count].tolist()):
        first = int(stored[walked + number])
        behind = start.second if first == start.first else first
        others = left[number + 1 :][near[number, number + 1 :]]
        others = others[view.row[others] > behind]
        scores = inner_products(view.index.vectors(left[number : number + 1]), view.index.vectors(others))[0]
        for other, score in zip(others.tolist(), scores.tolist(), strict=True):
            if score >= min_score:
                found.append(Pair(view.item(row), view.item(other), score))
                if len(found) == limit:
                    return Pairs(tuple(found), len(rows), walked + number, PairPlace(first, int(view.row[other])))
    walked = min(walked + count, len(rows))
    end = PairPlace(int(stored[walked]), 0) if walked < len(rows) else None
    return Pairs(tuple(found), len(rows), walked, end)


def _near(index: VectorIndex, firsts: Rows, others: Rows, min_score: float) -> Mask:
    """Which of ``others`` may reach ``min_score`` with which of ``firsts``, none missing: bool ``[firsts, others]``."""
    queries = index.vectors(firsts)
    floor = min_score - (index.dimension + 2) * 2.0**-23  # a product in float32, in any order, is nearer than that
    near = np.empty((len(firsts), len(others)), np.bool_)
    for begin in range(0, len(others), _CHUNK):
        part = slice(begin, begin + _CHUNK)
        near[:, part] = queries @ index.vectors(others[part]).T >= floor
    return near
