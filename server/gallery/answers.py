"""Searches answered from the memory of a gallery: filter, ranking, page, groups or re-ranking, hits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from server.gallery.columns import View
from server.gallery.index import Mask
from server.gallery.lists import Depth, InvertedLists
from server.gallery.rerank import reranked_distances
from server.gallery.search import Ranking, Wanted, fuse, rank, rank_groups
from server.gallery.types import Group, Hit, Place, Rerank, Search, SearchResult

__all__ = ["answers"]


@dataclass(frozen=True, slots=True)
class _Asked:
    """A search and the row of the item that does not count."""

    search: Search
    excluded: int | None

    def shares_pass(self, other: _Asked) -> bool:
        """Whether one pass over the vectors answers both. A late page looks at far more rows than others need."""
        early = self.search.after is None and other.search.after is None
        return early and self.search.where == other.search.where

    def searched(self, allowed: Mask) -> int:
        """How many items pass the filter."""
        return int(np.count_nonzero(allowed)) - (self.excluded is not None and bool(allowed[self.excluded]))

    def wanted(self) -> Wanted:
        """The ranking that the answer is made of."""
        search = self.search
        queries = fuse(search.queries, search.fusion)
        if search.rerank is not None:
            return Wanted(queries, max(search.k, search.rerank.candidates), exclude=self.excluded)
        k = search.k if search.group else search.k + 1  # one more tells whether there is another page
        floor = -np.inf if search.min_score is None else search.min_score
        return Wanted(queries, k, floor, search.after, self.excluded)

    def depth(self, lists: InvertedLists | None, passing: int) -> Depth | None:
        """How much of the lists to look at; None: at every item that passes.

        Groups have all that belongs to them, and further pages all that is behind a hit, so they are exact.
        """
        search = self.search
        if lists is None or search.exact or search.group or search.after is not None:
            return None
        k = search.k if search.rerank is None else max(search.k, search.rerank.candidates)
        return lists.depth(k, len(self.wanted().queries), passing)


def answers(view: View, searches: Sequence[Search]) -> list[SearchResult]:
    """The answer to each search.

    Raises:
        ValueError: the query vectors of one cancel out.
    """
    asked = [_Asked(one, None if one.exclude is None else view.row_of(one.exclude)) for one in searches]
    results: dict[int, SearchResult] = {}
    for numbers in _passes(asked):
        found = _answers(view, [asked[number] for number in numbers])
        results.update(zip(numbers, found, strict=True))
    return [results[number] for number in range(len(asked))]


def _passes(asked: Sequence[_Asked]) -> list[list[int]]:
    """The positions of those that share a pass, together."""
    passes: list[list[int]] = []
    for number, one in enumerate(asked):
        same = next((numbers for numbers in passes if one.shares_pass(asked[numbers[0]])), None)
        if same is None:
            passes.append([number])
        else:
            same.append(number)
    return passes


def _answers(view: View, asked: Sequence[_Asked]) -> Iterator[SearchResult]:
    """The answers to those that share a pass."""
    allowed = view.allowed(asked[0].search.where)
    depths = [one.depth(view.lists, int(np.count_nonzero(allowed))) for one in asked]
    together = [one for one, depth in zip(asked, depths, strict=True) if depth is None and not one.search.group]
    rankings = iter(rank(view.index, view.ids, allowed, [one.wanted() for one in together]))
    for one, depth in zip(asked, depths, strict=True):
        searched = one.searched(allowed)
        if one.search.group:
            best, members = rank_groups(view.index, view.ids, view.identity, allowed, one.wanted())
            groups = tuple(Group(h[0].item.identity, h[0].score, h) for h in (_hits(view, part) for part in members))
            yield SearchResult(searched, _hits(view, best), groups)
        elif view.lists is None or depth is None:
            yield _result(view, one.search, searched, next(rankings))
        else:  # each looks elsewhere, so none share a pass
            wanted, modality = one.wanted(), one.search.where.modality
            near = view.lists.near(wanted.queries, allowed, depth, None if modality is None else modality.index)
            (ranking,) = rank(view.index, view.ids, near, [wanted])
            yield replace(_result(view, one.search, searched, ranking), recall=depth.recall)


def _result(view: View, search: Search, searched: int, ranking: Ranking) -> SearchResult:
    if search.rerank is not None:
        return SearchResult(searched, _reranked(view, search, search.rerank, ranking))
    hits = _hits(view, ranking.head(search.k))
    if len(ranking.rows) <= search.k:
        return SearchResult(searched, hits)
    passed = 0 if search.after is None else search.after.rank
    return SearchResult(searched, hits, end=Place(hits[-1].score, hits[-1].item.id, passed + len(hits)))


def _reranked(view: View, search: Search, how: Rerank, ranking: Ranking) -> tuple[Hit, ...]:
    """The re-ranked candidates, then the others as they were; ``min_score`` takes hits away and moves none."""
    near, others = ranking.head(how.candidates), len(ranking.rows[how.candidates :])
    queries = fuse(search.queries, search.fusion)
    distances = reranked_distances(queries, view.index.vectors(near.rows), how)
    order = np.concatenate([np.argsort(distances, kind="stable"), len(near.rows) + np.arange(others)])
    if search.min_score is not None:
        order = order[ranking.scores[order] >= np.float32(search.min_score)]
    rows, scores = ranking.rows.tolist(), ranking.scores.tolist()
    known: list[float | None] = [*distances.tolist(), *[None] * others]
    return tuple(Hit(view.item(rows[n]), scores[n], known[n]) for n in order[: search.k].tolist())


def _hits(view: View, ranking: Ranking) -> tuple[Hit, ...]:
    pairs = zip(ranking.rows.tolist(), ranking.scores.tolist(), strict=True)
    return tuple(Hit(view.item(row), score) for row, score in pairs)
