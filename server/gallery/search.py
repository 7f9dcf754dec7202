"""Exact search: pure functions over an index, a mask and ids. Every answer equals brute force, ties included.

An index gives candidates, in whatever precision it computes. Here they are scored again exactly, and only those above
the best score that an unseen row can still have are believed; while these do not suffice, more candidates are fetched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from server.gallery.index import Mask, Rows, Scores, VectorIndex, inner_products
from server.gallery.types import Fusion, Vectors

__all__ = ["Ranking", "fuse", "rank", "rank_groups"]

_SPARE = 32
"""Candidates beyond k in the first round: enough unless many scores nearly tie."""
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

    def above(self, score: float) -> Ranking:
        """Those with more than ``score``."""
        return self.head(int((self.scores > score).sum()))

    def from_score(self, score: float) -> Ranking:
        """Those with at least ``score``."""
        return self.head(int((self.scores >= score).sum()))


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


def rank(
    index: VectorIndex,
    ids: Sequence[str],
    queries: Vectors,
    allowed: Mask,
    k: int,
    min_score: float = -np.inf,
) -> Ranking:
    """The ``k`` best allowed rows from ``min_score`` on. A row's score is its best over ``queries`` ``[q, D]``."""
    min_score = float(np.float32(min_score))  # scores are float32: a limit between two of them must not divide them
    total = int(allowed.sum())
    wanted = min(k, total)
    fetch = wanted + _SPARE
    while True:
        ranking, bound = _candidates(index, ids, queries, allowed, min(fetch, total))
        final = ranking.above(bound)
        if len(final.rows) >= wanted or bound < min_score:
            return final.head(k).from_score(min_score)
        fetch *= _GROWTH


def rank_groups(
    index: VectorIndex,
    ids: Sequence[str],
    groups: NDArray[np.int32],
    queries: Vectors,
    allowed: Mask,
    k: int,
    min_score: float = -np.inf,
) -> tuple[Ranking, list[Ranking]]:
    """What ``rank`` gives, and the ``k`` best groups by their best row, each with all its allowed rows.

    ``groups`` ``[rows]`` numbers them; a row of group 0 stands alone. Rows below ``min_score`` count for neither.
    """
    min_score = float(np.float32(min_score))
    left = allowed.copy()
    leaders: list[int] = []
    fetch = k + _SPARE
    while len(leaders) < k and (total := int(left.sum())):
        ranking, bound = _candidates(index, ids, queries, left, min(fetch, total))
        final = ranking.above(bound).from_score(min_score)
        leaders.extend(_first_of_each(final.rows, groups))
        left[final.rows] = False
        left &= ~_members(groups, final.rows)  # their groups are found: the next round looks for others
        if bound < min_score:
            break
        fetch *= _GROWTH
    leaders = leaders[:k]
    chosen = allowed & _members(groups, np.array(leaders, np.int64))
    chosen[leaders] = True
    ranking = _scored(index, ids, queries, np.flatnonzero(chosen)).from_score(min_score)
    alone = np.where(groups[ranking.rows] == 0, -1 - ranking.rows, groups[ranking.rows])
    keys = [int(groups[row]) or -1 - row for row in leaders]
    members = [Ranking(ranking.rows[alone == key], ranking.scores[alone == key]) for key in keys]
    return ranking.head(k), members  # the k best rows belong to the k best groups


def _candidates(
    index: VectorIndex, ids: Sequence[str], queries: Vectors, allowed: Mask, fetch: int
) -> tuple[Ranking, float]:
    """At least ``fetch`` allowed rows where there are that many, and a score that no other allowed row exceeds."""
    if fetch == 0:
        return Ranking(np.empty(0, np.int64), np.empty(0, np.float32)), -np.inf
    scores, rows = index.search(queries, fetch, allowed)
    complete = fetch >= int(allowed.sum())
    bound = -np.inf if complete else float(scores[:, -1].max()) + index.error + _ROUNDING
    return _scored(index, ids, queries, np.unique(rows[rows >= 0])), bound


def _scored(index: VectorIndex, ids: Sequence[str], queries: Vectors, rows: Rows) -> Ranking:
    scores = np.empty(len(rows), np.float32)
    for start in range(0, len(rows), _CHUNK):
        part = slice(start, start + _CHUNK)
        scores[part] = inner_products(queries, index.vectors(rows[part])).max(axis=0)
    keys = [(-score, ids[row]) for score, row in zip(scores.tolist(), rows.tolist(), strict=True)]
    order = sorted(range(len(rows)), key=keys.__getitem__)
    return Ranking(rows[order], scores[order])


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
