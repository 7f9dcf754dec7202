"""Ranks of the positives of each query."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.cores import usable_cores
from training.evaluation.similarity import Scores

__all__ = ["Ranking", "Ranks", "nearest", "rank"]

Ranks = NDArray[np.int64]

_BLOCK = 1 << 17  # scores sorted at a time, so that they fit into the processor's cache
_LAST_BITS = np.int32(np.iinfo(np.int32).max)  # sorts excluded images last
_LAST_KEY = np.iinfo(np.int64).max - 1  # sorts excluded images last and marks them as negatives


@dataclass(frozen=True, eq=False, slots=True)
class Ranking:
    """Ranks of the positives of some queries after exclusion, starting at 1.

    Args:
        query: int64 ``[P]``, the query of each positive, in ascending order.
        place: int64 ``[P]``, its rank among the images; strictly increasing within a query.
        identity_place: int64 ``[queries]``, rank of the query's identity among the distinct identities of the
            ranking, each counted at its first image; 0 without a positive.
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
                f"lengths differ: {self.query.shape} queries and {self.place.shape} places, "
                f"{self.identity_place.shape} identity places and {self.kept.shape} counts"
            )
        step, same = np.diff(self.query), self.query[1:] == self.query[:-1]
        if (step < 0).any():
            raise ValueError("queries must be sorted")
        if (np.diff(self.place)[same] <= 0).any():
            raise ValueError("places of a query must be strictly increasing")
        if len(self.query) and (self.query[0] < 0 or self.query[-1] >= len(self)):
            raise ValueError(f"expected queries in 0..{len(self) - 1}, found {self.query[0]}..{self.query[-1]}")
        if (self.place < 1).any() or (self.place > self.kept[self.query]).any():
            raise ValueError("places must be between 1 and the number of ranked images")
        if ((self.identity_place > 0) != (self.positives > 0)).any() or (self.identity_place > self.kept).any():
            raise ValueError("an identity must have a place within the ranking if and only if it has a positive")

    def __len__(self) -> int:
        return len(self.kept)

    @property
    def positives(self) -> Ranks:
        """int64 ``[queries]``: number of positives after exclusion."""
        return np.bincount(self.query, minlength=len(self))

    @property
    def first_place(self) -> Ranks:
        """int64 ``[queries]``: rank of the first positive among the images; 0 without a positive."""
        first = np.zeros(len(self), dtype=np.int64)
        starts = np.flatnonzero(np.diff(self.query, prepend=-1))
        first[self.query[starts]] = self.place[starts]
        return first


def rank(
    scores: Scores, query: NDArray[Any], gallery: NDArray[Any], excluded: NDArray[np.bool_] | None = None
) -> Ranking:
    """Rank the gallery for each query by descending score, ties by gallery index, and find its positives.

    Args:
        scores: float32 ``[Q, G]``, finite; larger is nearer.
        query: identities ``[Q]``.
        gallery: identities ``[G]``, G below 2^31.
        excluded: ``[Q, G]``, mask of the images excluded from a query's ranking; None: no image.

    Raises:
        ValueError: shapes or types are wrong, or a score is not finite.

    >>> ranking = rank(np.array([[0.9, 0.8, 0.7, 0.6]], np.float32), np.array(["C"]), np.array(list("ABAC")))
    >>> ranking.place, ranking.identity_place
    (array([4]), array([3]))
    """
    shape = len(query), len(gallery)
    if scores.dtype != np.float32 or scores.shape != shape or (excluded is not None and excluded.shape != shape):
        raise ValueError(f"expected float32 scores and a mask of shape {shape}, found {scores.dtype} {scores.shape}")
    if not len(query) or not len(gallery):
        nothing = np.zeros(0, dtype=np.int64)
        return Ranking(nothing, nothing, np.zeros(len(query), dtype=np.int64), np.zeros(len(query), dtype=np.int64))
    groups, own = _Groups.of(gallery, query)
    step = max(1, _BLOCK // len(gallery))
    blocks = [slice(start, start + step) for start in range(0, len(query), step)]

    def rank_block(rows: slice) -> tuple[Ranks, Ranks, Ranks, Ranks]:
        return _rank_block(scores[rows], own[rows], groups, None if excluded is None else excluded[rows])

    if len(blocks) > 1:
        with ThreadPoolExecutor(usable_cores()) as pool:  # NumPy releases the GIL while it sorts
            parts = list(pool.map(rank_block, blocks))
    else:
        parts = [rank_block(rows) for rows in blocks]
    owner = [found + rows.start for (found, *_), rows in zip(parts, blocks, strict=True)]
    return Ranking(np.concatenate(owner), *(np.concatenate([part[column] for part in parts]) for column in (1, 2, 3)))


def nearest(scores: Scores, count: int, excluded: NDArray[np.bool_] | None = None) -> Ranks:
    """Return the first ``count`` gallery images of each query in the order of :func:`rank`.

    Args:
        scores, excluded: see :func:`rank`.
        count: 0 to G.

    Returns int64 ``[Q, count]``, columns of ``scores``; -1 if fewer images remain after exclusion.

    >>> nearest(np.array([[0.5, -0.2, 1.0]], np.float32), 2)
    array([[2, 0]])
    """
    keys = _ordered_bits(scores).astype(np.int64) << 32
    keys |= np.arange(scores.shape[1])
    if excluded is not None:
        np.putmask(keys, excluded, _LAST_KEY)
    if 0 < count < scores.shape[1]:
        keys.partition(count - 1, axis=1)
    keys = np.sort(keys[:, :count], axis=1)
    return np.where(keys == _LAST_KEY, -1, keys & 0xFFFFFFFF)


@dataclass(frozen=True, eq=False, slots=True)
class _Groups:
    """The gallery ordered by identity, so that each identity has contiguous columns.

    ``order`` ``[G]``: gallery index of each column; ``codes`` ``[G]``: number of its identity; ``starts`` and ``sizes``
    of the identities' columns, with an empty last entry for the number -1 of an identity without images.
    """

    order: Ranks
    codes: Ranks
    starts: Ranks
    sizes: Ranks

    @classmethod
    def of(cls, gallery: NDArray[Any], query: NDArray[Any]) -> tuple[_Groups, Ranks]:
        """Group the gallery by identity, and return the number of each query's identity."""
        names, codes, sizes = np.unique(gallery, return_inverse=True, return_counts=True)
        own = np.minimum(np.searchsorted(names, query), len(names) - 1)
        starts, sizes = np.append(np.cumsum(sizes) - sizes, 0), np.append(sizes, 0)
        order = np.argsort(codes, kind="stable")
        return cls(order, codes[order], starts, sizes), np.where(names[own] == query, own, -1)


def _rank_block(
    scores: Scores, own: Ranks, groups: _Groups, excluded: NDArray[np.bool_] | None
) -> tuple[Ranks, Ranks, Ranks, Ranks]:
    """Return query, place, identity place and kept of a block of queries.

    Sorting only the scores is fast and gives the rank of every positive with a unique score. Queries with a positive
    whose score is tied are ranked by :func:`_rank_by_keys`.
    """
    count, size = scores.shape
    columns = np.take(scores, groups.order, axis=1, mode="clip")  # this mode does not check the indices
    falling = _ordered_bits(columns)
    kept = np.full(count, size)
    if excluded is not None:
        excluded = np.take(excluded, groups.order, axis=1, mode="clip")
        np.putmask(falling, excluded, _LAST_BITS)
        kept -= np.count_nonzero(excluded, axis=1)

    positives = _own_columns(falling, own, groups)
    positives.sort(axis=1)
    valid = positives < _LAST_BITS
    best = np.minimum.reduceat(falling, groups.starts[:-1], axis=1)
    identity_place = np.where(valid[:, 0], 1 + (best < positives[:, :1]).sum(axis=1), 0)

    falling.sort(axis=1)
    row_offset = (np.arange(count) << 32)[:, None]  # makes one ascending sequence of all rows
    ranked, sought = (falling + row_offset).ravel(), positives + row_offset
    before = np.searchsorted(ranked, sought.ravel()).reshape(positives.shape)
    place = 1 + before - size * np.arange(count)[:, None]
    tied = ((ranked[np.minimum(before + 1, len(ranked) - 1)] == sought) & valid & (place < size)).any(axis=1)
    if tied.any():
        of_tied = place[tied]
        of_tied[valid[tied]], identity_place[tied] = _rank_by_keys(
            columns[tied], own[tied], groups, None if excluded is None else excluded[tied]
        )
        place[tied] = of_tied
    return np.nonzero(valid)[0], place[valid], identity_place, kept


def _own_columns(falling: NDArray[np.int32], own: Ranks, groups: _Groups) -> NDArray[np.int32]:
    """Return the values of each query's identity, ``[q, maximum images of an identity]``, padded with a last value."""
    sizes = groups.sizes[own][:, None]
    offset = np.arange(max(1, sizes.max()))
    columns = np.minimum(groups.starts[own][:, None] + offset, falling.shape[1] - 1)
    return np.where(offset < sizes, np.take_along_axis(falling, columns, axis=1), _LAST_BITS)


def _rank_by_keys(
    columns: Scores, own: Ranks, groups: _Groups, excluded: NDArray[np.bool_] | None
) -> tuple[Ranks, Ranks]:
    """Return the places of all positives, query by query, and identity places ``[q]``, with ties resolved.

    A key is an int64: the ordered bits of the score, then the gallery index, then whether the image is a positive. All
    keys differ, so any sort is stable, and the last bit marks the positives after sorting.
    """
    keys = _ordered_bits(columns).astype(np.int64) << 32
    keys |= groups.order << 1
    keys |= groups.codes == own[:, None]
    if excluded is not None:
        np.putmask(keys, excluded, _LAST_KEY)
    best = np.minimum.reduceat(keys, groups.starts[:-1], axis=1)
    identity_place = 1 + (best < np.take_along_axis(best, own[:, None], axis=1)).sum(axis=1)
    keys.sort(axis=1)
    return 1 + np.flatnonzero(keys & 1) % keys.shape[1], identity_place


def _ordered_bits(scores: Scores) -> NDArray[np.int32]:
    """Convert each score to an int32, in the order of descending scores.

    Raises:
        ValueError: a score is not finite.
    """
    falling = np.float32(0) - scores  # avoids negative zero
    if not (falling.min(initial=0) > -np.inf and falling.max(initial=0) < np.inf):
        raise ValueError("expected finite scores, found NaN or infinity")
    bits = falling.view(np.int32)
    flip = bits >> 31
    flip &= 0x7FFFFFFF
    bits ^= flip  # the integer value of a negative float's bits decreases as the float increases
    return bits
