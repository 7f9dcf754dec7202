"""Where the right answers of each query stand in its ranking."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.evaluation.similarity import Scores

__all__ = ["Ranking", "Ranks", "nearest", "rank"]

Ranks = NDArray[np.int64]

_BLOCK = 1 << 16  # sorted keys at a time: they stay in the processor's cache
_LAST = np.iinfo(np.int64).max - 1  # key of an excluded image: behind all others, and no hit


@dataclass(frozen=True, eq=False, slots=True)
class Ranking:
    """The places of the positives of some queries, after exclusion. Ranks count from 1.

    Args:
        query: int64 ``[P]``, which query each positive belongs to; rising.
        place: int64 ``[P]``, its rank among the images; strictly rising within a query.
        identity_place: int64 ``[queries]``, rank of the query's identity among the distinct identities of the
            ranking, each counted at its first image; 0 where no positive is left.
        kept: int64 ``[queries]``, number of images ranked.

    Raises:
        ValueError: unsorted, duplicate or out-of-range places.
    """

    query: Ranks
    place: Ranks
    identity_place: Ranks
    kept: Ranks

    def __post_init__(self) -> None:
        if self.query.shape != self.place.shape or self.identity_place.shape != self.kept.shape:
            raise ValueError(
                f"lengths differ: {self.query.shape} queries for {self.place.shape} places, "
                f"{self.identity_place.shape} identity places for {self.kept.shape} counts"
            )
        step, same = np.diff(self.query), self.query[1:] == self.query[:-1]
        if (step < 0).any():
            raise ValueError("queries must be sorted")
        if (np.diff(self.place)[same] <= 0).any():
            raise ValueError("places of a query must rise and differ")
        if len(self.query) and (self.query[0] < 0 or self.query[-1] >= len(self)):
            raise ValueError(f"expected queries in 0..{len(self) - 1}, found {self.query[0]}..{self.query[-1]}")
        if (self.place < 1).any() or (self.place > self.kept[self.query]).any():
            raise ValueError("places must lie between 1 and the number of images ranked")
        if ((self.identity_place > 0) != (self.positives > 0)).any() or (self.identity_place > self.kept).any():
            raise ValueError("an identity has a place exactly where a positive is left, and within the ranking")

    def __len__(self) -> int:
        return len(self.kept)

    @property
    def positives(self) -> Ranks:
        """int64 ``[queries]``: number of positives left after exclusion."""
        return np.bincount(self.query, minlength=len(self))

    @property
    def first_place(self) -> Ranks:
        """int64 ``[queries]``: rank of the first positive among the images; 0 where none is left."""
        first = np.zeros(len(self), dtype=np.int64)
        starts = np.flatnonzero(np.diff(self.query, prepend=-1))
        first[self.query[starts]] = self.place[starts]
        return first


def rank(
    scores: Scores, query: NDArray[Any], gallery: NDArray[Any], excluded: NDArray[np.bool_] | None = None
) -> Ranking:
    """Rank the gallery for each query by falling score, ties by gallery index, and find its positives.

    Args:
        scores: float32 ``[Q, G]``, finite; larger is nearer.
        query: identities ``[Q]``.
        gallery: identities ``[G]``, G below 2^31.
        excluded: ``[Q, G]``, the images that are not in a query's ranking; None: all are.

    Raises:
        ValueError: shapes or types do not fit, or a score is not finite.

    >>> ranking = rank(np.array([[0.9, 0.8, 0.7, 0.6]], np.float32), np.array(["C"]), np.array(list("ABAC")))
    >>> ranking.place, ranking.identity_place
    (array([4]), array([3]))
    """
    shape = len(query), len(gallery)
    if scores.dtype != np.float32 or scores.shape != shape or (excluded is not None and excluded.shape != shape):
        raise ValueError(f"expected float32 scores and a mask of shape {shape}, found {scores.dtype} {scores.shape}")
    names, codes = np.unique(gallery, return_inverse=True)
    order = np.argsort(codes, kind="stable")  # gallery by identity, so that each identity is one run of columns
    own, codes = _codes(names, query), codes[order]
    step = max(1, _BLOCK // max(1, len(gallery)))
    blocks = [slice(start, start + step) for start in range(0, len(query), step)]

    def rank_block(rows: slice) -> tuple[Ranks, Ranks, Ranks, Ranks]:
        return _rank_block(scores[rows], own[rows], codes, order, None if excluded is None else excluded[rows])

    with ThreadPoolExecutor() as pool:  # NumPy lets go of the interpreter while it sorts
        parts = list(pool.map(rank_block, blocks))
    if not parts:
        empty = np.zeros(0, dtype=np.int64)
        return Ranking(empty, empty, empty, empty)
    owner = [found + rows.start for (found, *_), rows in zip(parts, blocks, strict=True)]
    return Ranking(np.concatenate(owner), *(np.concatenate([part[column] for part in parts]) for column in (1, 2, 3)))


def nearest(scores: Scores, count: int, excluded: NDArray[np.bool_] | None = None) -> Ranks:
    """The first ``count`` gallery images of each query's ranking, in the order of :func:`rank`.

    Args:
        scores, excluded: see :func:`rank`.
        count: 0 to G.

    Returns int64 ``[Q, count]``, columns of ``scores``; -1 where fewer images are left after exclusion.

    >>> nearest(np.array([[0.5, -0.2, 1.0]], np.float32), 2)
    array([[2, 0]])
    """
    keys = _sort_keys(scores)
    keys |= np.arange(scores.shape[1])
    if excluded is not None:
        np.putmask(keys, excluded, _LAST)
    if 0 < count < scores.shape[1]:
        keys.partition(count - 1, axis=1)
    keys = np.sort(keys[:, :count], axis=1)
    return np.where(keys == _LAST, -1, keys & 0xFFFFFFFF)


def _sort_keys(scores: Scores) -> Ranks:
    """One int64 a finite score whose order is that of falling scores; the lower 32 bits are free, to break ties.

    Raises:
        ValueError: a score is not finite.
    """
    falling = np.float32(0) - scores  # 0 - 0 leaves no negative zero
    if not (falling.min(initial=0) > -np.inf and falling.max(initial=0) < np.inf):
        raise ValueError("expected finite scores, found NaN or infinity")
    bits = falling.view(np.int32)
    flip = bits >> 31
    flip &= 0x7FFFFFFF
    bits ^= flip  # the bits of a negative float fall as it rises
    keys = bits.astype(np.int64)
    keys <<= 32
    return keys


def _codes(names: NDArray[Any], identities: NDArray[Any]) -> Ranks:
    """Position of each identity in the sorted names, -1 where it is not among them."""
    if not len(names):
        return np.full(len(identities), -1)
    codes = np.minimum(np.searchsorted(names, identities), len(names) - 1)
    return np.where(names[codes] == identities, codes, -1)


def _rank_block(
    scores: Scores, own: Ranks, codes: Ranks, order: Ranks, excluded: NDArray[np.bool_] | None
) -> tuple[Ranks, Ranks, Ranks, Ranks]:
    """Query, place, identity place and kept of a few queries; columns are sorted through keys.

    A key is one int64: the negative score's bits in an order-preserving form, then the gallery index, then
    whether the image is a positive. All keys differ, so any sort is stable, and it carries the hits along.
    """
    keys = _sort_keys(np.take(scores, order, axis=1, mode="clip"))  # the mode that does not check every index
    keys |= order << 1
    keys |= codes == own[:, None]
    kept = np.full(len(scores), len(order))
    if excluded is not None:
        excluded = np.take(excluded, order, axis=1, mode="clip")
        np.putmask(keys, excluded, _LAST)
        kept -= np.count_nonzero(excluded, axis=1)

    identity_place = _identity_places(keys, codes, own)
    keys.sort(axis=1)
    keys &= 1
    query, place = np.divmod(np.flatnonzero(keys.astype(np.bool_)), max(1, keys.shape[1]))
    return query, place + 1, identity_place, kept


def _identity_places(keys: Ranks, codes: Ranks, own: Ranks) -> Ranks:
    """Rank of the query's identity among the identities, each at its best image; 0 where no positive is left."""
    if not keys.shape[1]:
        return np.zeros(len(keys), dtype=np.int64)
    best = np.minimum.reduceat(keys, np.flatnonzero(np.diff(codes, prepend=-1)), axis=1)
    mine = np.take_along_axis(best, np.maximum(own, 0)[:, None], axis=1)
    return np.where(mine[:, 0] & 1, 1 + (best < mine).sum(axis=1), 0)
