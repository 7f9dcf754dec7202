"""Near-duplicates: pairs of similar items, found by comparing every item with every other, page by page."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from server.domain.types import Filter, Item
from server.gallery.columns import GalleryView
from server.index.protocol import Mask, Rows, VectorIndex, inner_products

__all__ = ["DuplicatePage", "DuplicatePair", "PairPosition", "find_pairs"]

_COMPARISONS = 2**25
"""Comparisons of one call, approximately: half a second of one core at 512 dimensions."""
_CHUNK = 4096


@dataclass(frozen=True, slots=True)
class DuplicatePair:
    """Two items, the one stored earlier first, and the cosine of their vectors.

    ``identical``: both are known to come from the same file or the same uploaded vector.
    """

    first: Item
    second: Item
    score: float
    identical: bool = False


@dataclass(frozen=True, slots=True)
class PairPosition:
    """A position among all pairs: before the pairs of store row ``first`` with rows behind ``second``."""

    first: int
    second: int


@dataclass(frozen=True, slots=True)
class DuplicatePage:
    """A page of pairs. ``end`` is the position to continue from; None at the end.

    ``walked`` of the ``items`` that pass the filter have been compared with all later ones.
    """

    pairs: tuple[DuplicatePair, ...]
    items: int
    walked: int
    end: PairPosition | None


def find_pairs(
    view: GalleryView,
    where: Filter,
    min_score: float,
    limit: int,
    start: PairPosition | None = None,
    comparisons: int = _COMPARISONS,
) -> DuplicatePage:
    """Return the next pairs, from ``start`` on, of items that pass and whose cosine is at least ``min_score``.

    Pairs are in the order in which the items were stored, so writes between two calls move no pair of other items. A
    call returns at most ``limit`` pairs and makes about ``comparisons``, at least those of one item with all others;
    so it may return no pair although more follow. Scores are exact.
    """
    start = start or PairPosition(0, 0)
    min_score = float(np.float32(min_score))  # the precision of scores
    rows = np.flatnonzero(view.allowed(where))
    rows = rows[np.argsort(view.row[rows], kind="stable")]
    stored = view.row[rows]
    walked = int(np.searchsorted(stored, start.first))
    left, count = rows[walked:], max(1, comparisons // max(1, len(rows) - walked))
    near = _near(view.index, left[:count], left, min_score)

    found: list[DuplicatePair] = []
    for number, row in enumerate(left[:count].tolist()):
        first = int(stored[walked + number])
        behind = start.second if first == start.first else first
        others = left[number + 1 :][near[number, number + 1 :]]
        others = others[view.row[others] > behind]
        scores = inner_products(view.index.vectors(left[number : number + 1]), view.index.vectors(others))[0]
        for other, score in zip(others.tolist(), scores.tolist(), strict=True):
            if score >= min_score:
                found.append(DuplicatePair(view.item(row), view.item(other), score))
                if len(found) == limit:
                    return DuplicatePage(
                        tuple(found), len(rows), walked + number, PairPosition(first, int(view.row[other]))
                    )
    walked = min(walked + count, len(rows))
    end = PairPosition(int(stored[walked]), 0) if walked < len(rows) else None
    return DuplicatePage(tuple(found), len(rows), walked, end)


def _near(index: VectorIndex, firsts: Rows, others: Rows, min_score: float) -> Mask:
    """Return which pairs may reach ``min_score``, without missing any: bool ``[firsts, others]``."""
    queries = index.vectors(firsts)
    floor = min_score - (index.dimension + 2) * 2.0**-23  # the error of a float32 product, in any order, is smaller
    near = np.empty((len(firsts), len(others)), np.bool_)
    for begin in range(0, len(others), _CHUNK):
        part = slice(begin, begin + _CHUNK)
        near[:, part] = queries @ index.vectors(others[part]).T >= floor
    return near
