"""Exact rankings from an index, a mask and ids. Every result equals brute force, ties included.

An index returns candidates in its own precision. They are scored again exactly, and only those above the best score
that an unseen row can have are accepted; while these do not suffice, more candidates are fetched.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from server.domain.types import Fusion, RankingPosition, Vectors
from server.index.protocol import Mask, Rows, Scores, VectorIndex, inner_products

__all__ = ["Ranking", "RankingRequest", "fuse", "rank", "rank_groups"]

_SPARE, _SPARE_SHARE = 8, 1 / 16
"""Extra candidates of the first round: enough unless many scores nearly tie."""
_ROUNDING = 2.0**-23
"""Twice the largest error of rounding a score to float32."""
_GROWTH = 4
_CHUNK = 4096


@dataclass(frozen=True, slots=True)
class Ranking:
    """Rows ``[n]`` of an index and their scores ``[n]``, in falling score, equal ones by item id."""

    rows: Rows
    scores: Scores

    def head(self, count: int) -> Ranking:
        """Return the first ``count`` rows."""
        return Ranking(self.rows[:count], self.scores[:count])


@dataclass(frozen=True, slots=True)
class RankingRequest:
    """A requested ranking: the ``k`` best rows with at least ``min_score``, behind ``after``, without row ``exclude``.

    A row's score is its best over ``queries`` ``[q, D]``.
    """

    queries: Vectors
    k: int
    min_score: float = -np.inf
    after: RankingPosition | None = None
    exclude: int | None = None

    @property
    def reach(self) -> int:
        """Number of rows to consider if nothing has changed since the previous page."""
        return self.k + (self.exclude is not None) + (0 if self.after is None else self.after.rank)

    @property
    def floor(self) -> float:
        """``min_score`` rounded to float32, the precision of scores."""
        return float(np.float32(self.min_score))


_EMPTY = Ranking(np.empty(0, np.int64), np.empty(0, np.float32))


def fuse(queries: Vectors, fusion: Fusion) -> Vectors:
    """Return the query vectors to search with: the mean of ``queries`` ``[q, D]``, of unit length ``[1, D]``, or all.

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


def rank(index: VectorIndex, ids: Sequence[str], allowed: Mask, requests: Sequence[RankingRequest]) -> list[Ranking]:
    """Return the requested rankings of the allowed rows, in one pass over the vectors unless scores nearly tie."""
    total = int(np.count_nonzero(allowed))
    found = dict.fromkeys(range(len(requests)), _EMPTY) if total == 0 else {}
    fetch = _with_spare(max((request.reach for request in requests), default=0))
    while missing := [number for number in range(len(requests)) if number not in found]:
        queries = np.concatenate([requests[number].queries for number in missing])
        scores, rows = index.search(queries, min(fetch, total), allowed)
        end = 0
        for number in missing:
            start, end = end, end + len(requests[number].queries)
            near, there = scores[start:end], rows[start:end]
            ranking = _final_ranking(index, ids, requests[number], near, there, complete=fetch >= total)
            if ranking is not None:
                found[number] = ranking
        fetch *= _GROWTH
    return [found[number] for number in range(len(requests))]


def rank_groups(
    index: VectorIndex, ids: Sequence[str], groups: NDArray[np.int32], allowed: Mask, request: RankingRequest
) -> tuple[Ranking, list[Ranking]]:
    """Return the ranking of ``rank``, and the ``k`` best groups by their best row, each with all its allowed rows.

    ``groups`` ``[rows]`` holds group numbers; a row of group 0 is a group of its own. Rows below ``min_score`` are
    ignored.
    """
    queries, k, floor = request.queries, request.k, request.floor
    allowed = allowed.copy()
    if request.exclude is not None:
        allowed[request.exclude] = False
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
        left &= ~_members(groups, final.rows)  # their groups are found; the next round looks for other groups
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


def _final_ranking(
    index: VectorIndex, ids: Sequence[str], request: RankingRequest, approximate: Scores, rows: Rows, *, complete: bool
) -> Ranking | None:
    """Return the ranking from the candidates of the index; None if rows that it did not return may belong to it."""
    bound = _bound(index, approximate, complete=complete)
    rows, there = rows[rows >= 0], rows
    if request.after is not None:  # rows that are certainly better were on an earlier page
        rows = np.setdiff1d(rows, there[approximate > request.after.score + index.error + _ROUNDING])
    elif len(there) > 1:
        rows = np.unique(rows)
    scores = _exact(index, request.queries, rows)
    keep = (scores > bound) & (scores >= request.floor)
    if request.exclude is not None:
        keep &= rows != request.exclude
    if request.after is not None:
        keep &= _behind(ids, rows, scores, request.after)
    if complete or bound < request.floor or keep.sum() >= request.k:
        return _ordered(ids, rows[keep], scores[keep], request.k)
    return None


def _with_spare(count: int) -> int:
    return count + int(count * _SPARE_SHARE) + _SPARE


def _bound(index: VectorIndex, approximate: Scores, *, complete: bool) -> float:
    """Return a score that no row exceeds unless the index returned it for one of the queries."""
    return -np.inf if complete else float(approximate[:, -1].max()) + index.error + _ROUNDING


def _exact(index: VectorIndex, queries: Vectors, rows: Rows) -> Scores:
    """Return the score of each row: its best over the queries."""
    scores = np.empty(len(rows), np.float32)
    for start in range(0, len(rows), _CHUNK):
        part = slice(start, start + _CHUNK)
        scores[part] = inner_products(queries, index.vectors(rows[part])).max(axis=0)
    return scores


def _behind(ids: Sequence[str], rows: Rows, scores: Scores, place: RankingPosition) -> Mask:
    """Return which rows come behind that position."""
    behind = scores < np.float32(place.score)
    tied = np.flatnonzero(scores == np.float32(place.score))
    behind[tied] = [ids[row] > place.id for row in rows[tied].tolist()]
    return behind


def _ordered(ids: Sequence[str], rows: Rows, scores: Scores, k: int | None = None) -> Ranking:
    """Return the ``k`` best rows, or all. Ids are decoded lazily: only those of equal scores are read."""
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
    """Return the rows that share a group, other than 0, with one of ``rows``."""
    table = np.zeros(int(groups.max(initial=0)) + 1, np.bool_)
    table[groups[rows]] = True
    table[0] = False
    return table[groups]
