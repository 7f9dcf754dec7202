"""Exact search: pure functions over an index, a mask and ids. Every answer equals brute force, ties included.

An index gives candidates, in whatever precision it computes. Here they are scored again exactly, and only those above
the best score that an unseen row can still have are believed; while these do not suffice, more candidates are fetched.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from server.gallery.index import Mask, Rows, Scores, VectorIndex, inner_products
from server.gallery.types import Fusion, Place, Vectors

__all__ = ["Ranking", "Wanted", "fuse", "rank", "rank_groups"]

_SPARE, _SPARE_SHARE = 32, 1 / 16
"""Candidates beyond those needed, in the first round: enough unless many scores nearly tie."""
_ROUNDING = 2.0**-23
"""Twice what rounding a score to float32 may move it."""
_GROWTH = 4
_CHUNK = 4096


@dataclass(frozen=True, slots=True)
class Ranking:
    """Rows ``[n]`` of an index and their scores ``[n]``, in falling score, equal ones by item id."""

    rows: Rows
    scores: Scores

    def head(self, count: int) -> Ranking:
        """The first ``count``."""
        return Ranking(self.rows[:count], self.scores[:count])


@dataclass(frozen=True, slots=True)
class Wanted:
    """A ranking to make: the ``k`` best rows from ``min_score`` on, behind the place ``after``, without one row.

    A row's score is its best over ``queries`` ``[q, D]``.
    """

    queries: Vectors
    k: int
    min_score: float = -np.inf
    after: Place | None = None
    exclude: int | None = None

    @property
    def reach(self) -> int:
        """How many rows must be looked at, if nothing has changed since the page before."""
        return self.k + (self.exclude is not None) + (0 if self.after is None else self.after.rank)

    @property
    def floor(self) -> float:
        """``min_score`` in float32, as scores are: a limit between two of them must not divide them."""
        return float(np.float32(self.min_score))


_NOTHING = Ranking(np.empty(0, np.int64), np.empty(0, np.float32))


def fuse(queries: Vectors, fusion: Fusion) -> Vectors:
    """Query vectors ``[q, D]`` to search with: their mean, made unit length ``[1, D]``, or all of them.

    Raises:
        ValueError: the mean of the vectors is zero, so it has no direction.
    """
    if fusion is Fusion.MAX or len(queries) == 1:
        return queries
    mean = queries.astype(np.float64).mean(axis=0, keepdims=True)
    norm = float(np.linalg.norm(mean))
    if norm < 1e-6:
        raise ValueError(f"the {len(queries)} query vectors cancel out: their mean has norm {norm:.2g}")
    unit: Vectors = (mean / norm).astype(np.float32)
    return unit


def rank(index: VectorIndex, ids: Sequence[str], allowed: Mask, wanted: Sequence[Wanted]) -> list[Ranking]:
    """The rankings of the allowed rows that are wanted: all in one pass over the vectors, but for near ties."""
    total = int(np.count_nonzero(allowed))
    found = dict.fromkeys(range(len(wanted)), _NOTHING) if total == 0 else {}
    fetch = _with_spare(max((one.reach for one in wanted), default=0))
    while missing := [number for number in range(len(wanted)) if number not in found]:
        queries = np.concatenate([wanted[number].queries for number in missing])
        scores, rows = index.search(queries, min(fetch, total), allowed)
        end = 0
        for number in missing:
            start, end = end, end + len(wanted[number].queries)
            near, there = scores[start:end], rows[start:end]
            ranking = _settled(index, ids, wanted[number], near, there, complete=fetch >= total)
            if ranking is not None:
                found[number] = ranking
        fetch *= _GROWTH
    return [found[number] for number in range(len(wanted))]


def rank_groups(
    index: VectorIndex, ids: Sequence[str], groups: NDArray[np.int32], allowed: Mask, wanted: Wanted
) -> tuple[Ranking, list[Ranking]]:
    """What ``rank`` gives, and the ``k`` best groups by their best row, each with all its allowed rows.

    ``groups`` ``[rows]`` numbers them; a row of group 0 stands alone. Rows below ``min_score`` count for neither.
    """
    queries, k, floor = wanted.queries, wanted.k, wanted.floor
    allowed = allowed.copy()
    if wanted.exclude is not None:
        allowed[wanted.exclude] = False
    left = allowed.copy()
    leaders: list[int] = []
    fetch = _with_spare(k)
    while len(leaders) < k and (total := int(np.count_nonzero(left))):
        approximate, rows = index.search(queries, min(fetch, total), left)
        bound = _bound(index, approximate, complete=fetch >= total)
        rows = np.unique(rows[rows >= 0])
        scores = _exact(index, queries, rows)
        keep = (scores > bound) & (scores >= floor)
        final = _ordered(ids, rows[keep], scores[keep])
        leaders.extend(_first_of_each(final.rows, groups))
        left[final.rows] = False
        left &= ~_members(groups, final.rows)  # their groups are found: the next round looks for others
        if bound < floor:
            break
        fetch *= _GROWTH
    leaders = leaders[:k]
    chosen = allowed & _members(groups, np.array(leaders, np.int64))
    chosen[leaders] = True
    rows = np.flatnonzero(chosen)
    scores = _exact(index, queries, rows)
    ranking = _ordered(ids, rows[scores >= floor], scores[scores >= floor])
    alone = np.where(groups[ranking.rows] == 0, -1 - ranking.rows, groups[ranking.rows])
    keys = [int(groups[row]) or -1 - row for row in leaders]
    members = [Ranking(ranking.rows[alone == key], ranking.scores[alone == key]) for key in keys]
    return ranking.head(k), members  # the k best rows belong to the k best groups


def _settled(
    index: VectorIndex, ids: Sequence[str], wanted: Wanted, approximate: Scores, rows: Rows, *, complete: bool
) -> Ranking | None:
    """The ranking, from what the index found for it; None where rows that it did not find may belong there."""
    bound = _bound(index, approximate, complete=complete)
    rows, there = rows[rows >= 0], rows
    if wanted.after is not None:  # whatever is better for sure was on an earlier page
        rows = np.setdiff1d(rows, there[approximate > wanted.after.score + index.error + _ROUNDING])
    elif len(there) > 1:
        rows = np.unique(rows)
    scores = _exact(index, wanted.queries, rows)
    keep = (scores > bound) & (scores >= wanted.floor)
    if wanted.exclude is not None:
        keep &= rows != wanted.exclude
    if wanted.after is not None:
        keep &= _behind(ids, rows, scores, wanted.after)
    if complete or bound < wanted.floor or keep.sum() >= wanted.k:
        return _ordered(ids, rows[keep], scores[keep], wanted.k)
    return None


def _with_spare(count: int) -> int:
    return count + int(count * _SPARE_SHARE) + _SPARE


def _bound(index: VectorIndex, approximate: Scores, *, complete: bool) -> float:
    """A score that no row exceeds which the index did not find for any of the queries."""
    return -np.inf if complete else float(approximate[:, -1].max()) + index.error + _ROUNDING


def _exact(index: VectorIndex, queries: Vectors, rows: Rows) -> Scores:
    """The score of each row: its best over the queries."""
    scores = np.empty(len(rows), np.float32)
    for start in range(0, len(rows), _CHUNK):
        part = slice(start, start + _CHUNK)
        scores[part] = inner_products(queries, index.vectors(rows[part])).max(axis=0)
    return scores


def _behind(ids: Sequence[str], rows: Rows, scores: Scores, place: Place) -> Mask:
    """Which rows come after that place."""
    behind = scores < np.float32(place.score)
    tied = np.flatnonzero(scores == np.float32(place.score))
    behind[tied] = [ids[row] > place.id for row in rows[tied].tolist()]
    return behind


def _ordered(ids: Sequence[str], rows: Rows, scores: Scores, k: int | None = None) -> Ranking:
    """The ``k`` best rows, or all. Ids are made when they are asked for: only those of equal scores are."""
    order = np.argsort(-scores, kind="stable")
    rows, scores = rows[order], scores[order]
    k = len(rows) if k is None else k
    for start in np.flatnonzero(scores[:-1] == scores[1:]).tolist():
        if start < k and (start == 0 or scores[start - 1] != scores[start]):
            end = int(np.searchsorted(-scores, -scores[start], "right"))
            first = heapq.nsmallest(k - start, rows[start:end].tolist(), key=ids.__getitem__)
            rows[start : start + len(first)] = first
    return Ranking(rows[:k], scores[:k])


def _first_of_each(rows: Rows, groups: NDArray[np.int32]) -> list[int]:
    seen: set[int] = set()
    first = []
    for row in rows.tolist():
        group = int(groups[row])
        if group == 0 or group not in seen:
            first.append(row)
            seen.add(group)
    return first


def _members(groups: NDArray[np.int32], rows: Rows) -> Mask:
    """The rows that share a group, other than 0, with one of ``rows``."""
    table = np.zeros(int(groups.max(initial=0)) + 1, np.bool_)
    table[groups[rows]] = True
    table[0] = False
    return table[groups]
