"""Reading of galleries: items and their vectors, searches, near-duplicates and whole galleries.

A search runs over one view of a gallery in memory: filter, ranking, then a page, groups or re-ranked hits.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import numpy as np

from models.card import Calibration
from server.domain.errors import ModelMismatch, NotReady, ThumbnailsMissing
from server.domain.fields import UNIT_NORM_TOLERANCE
from server.domain.types import (
    Filter,
    Gallery,
    Group,
    Hit,
    Item,
    NewItem,
    RankingPosition,
    Rerank,
    Search,
    SearchResult,
    Vectors,
)
from server.gallery.calibration import ImpostorRule, calibrate_view
from server.gallery.columns import GalleryView
from server.gallery.duplicates import DuplicatePage, DuplicatePair, PairPosition, find_pairs
from server.gallery.handle import GalleryHandles
from server.gallery.summary import Summary, summarise
from server.index.ivf import InvertedLists, SearchDepth
from server.index.protocol import Mask
from server.index.ranking import Ranking, RankingRequest, rank, rank_groups
from server.index.rerank import reranked_distances
from server.storage.protocol import Store

__all__ = ["GalleryQuery", "checked_vectors", "run_searches"]


class GalleryQuery:
    """Reads items and searches galleries.

    Every method raises ``GalleryNotFound`` and ``NotReady``; those that name an item raise ``ItemNotFound``.
    """

    def __init__(self, handles: GalleryHandles, store: Store) -> None:
        self._handles, self._store = handles, store

    def item(self, name: str, id: str) -> Item:
        """Return one item."""
        self._handles.find(name)
        return self._store.item(name, id)

    def items(self, name: str, where: Filter, *, limit: int, after: str | None = None) -> list[Item]:
        """Return at most ``limit`` items that pass ``where``, by id, starting behind ``after``."""
        self._handles.find(name)
        return self._store.items(name, where, limit=limit, after=after)

    def items_by_id(self, name: str, ids: Collection[str]) -> dict[str, Item]:
        """Return those of the items that exist."""
        self._handles.find(name)
        return self._store.items_by_id(name, ids)

    def thumbnail(self, name: str, id: str) -> bytes:
        """Return an item's thumbnail. Raises ``ItemNotFound`` also if it has none."""
        self._handles.find(name)
        return self._store.thumbnail(name, id)

    def vector(self, name: str, id: str) -> tuple[Item, Vectors]:
        """Return an item and its vector, float32 ``[dimension]``. Raises ``NotReady`` during a switch of the model."""
        handle = self._handles.find(name)
        found = self._store.vector(name, id)
        if self._store.gallery(name).fingerprint != handle.gallery.fingerprint:  # searches still see the old vectors
            raise NotReady([f"gallery {name} is being bound to another model"])
        return found

    def require_thumbnails(self, name: str) -> None:
        """Raise ``ThumbnailsMissing`` if an item has no thumbnail."""
        self._handles.find(name)
        if missing := self._store.count_without_thumbnail(name):
            raise ThumbnailsMissing(name, missing)

    def dump(self, name: str) -> AbstractContextManager[tuple[Gallery, Iterator[NewItem]]]:
        """Open a gallery and all its items, as of one moment; see ``Store.dump``."""
        self._handles.find(name)
        return self._store.dump(name)

    def search(self, name: str, searches: Sequence[Search], *, fingerprint: str) -> list[SearchResult]:
        """Run searches; those with the same filter share one pass over the vectors.

        ``hits`` are the same with and without ``group``.

        Raises:
            ModelMismatch: the gallery is bound to another fingerprint or dimension.
            ValueError: a query vector is not finite or not of unit length.
            NotReady: memory is not in step with the store.
        """
        handle = self._handles.find(name)
        searches = [replace(one, queries=checked_vectors(handle.gallery, fingerprint, one.queries)) for one in searches]
        return run_searches(handle.ready().view(), searches)

    def count(self, name: str, where: Filter, exclude: str | None = None) -> int:
        """Count the items that pass ``where``, other than ``exclude``: the ``searched`` of such a search."""
        view = self._handles.find(name).ready().view()
        allowed = view.allowed(where)
        row = None if exclude is None else view.row_of(exclude)
        return int(np.count_nonzero(allowed)) - (row is not None and bool(allowed[row]))

    def summary(self, name: str, where: Filter) -> Summary:
        """Summarise the items that pass ``where``."""
        return summarise(self._handles.find(name).ready().view(), where)

    def calibrate(self, name: str, rule: ImpostorRule) -> list[Calibration]:
        """Measure false match rates among the items of a gallery. Raises ``InvalidRequest``: too few pairs."""
        return calibrate_view(self._handles.find(name).ready().view(), rule, f"gallery {name}, by {rule.method}")

    def duplicates(
        self, name: str, where: Filter, min_score: float, *, limit: int, start: PairPosition | None = None
    ) -> DuplicatePage:
        """Return the next pairs of near-duplicates among items that pass ``where``; see ``find_pairs``."""
        found = find_pairs(self._handles.find(name).ready().view(), where, min_score, limit, start)
        ids = {item.id for pair in found.pairs for item in (pair.first, pair.second)}
        hashes = self._store.content_hashes(name, sorted(ids))
        return replace(found, pairs=tuple(_compared(pair, hashes) for pair in found.pairs))


def checked_vectors(gallery: Gallery, fingerprint: str, vectors: Sequence[Vectors] | Vectors) -> Vectors:
    """Return the vectors as float32 ``[n, dimension]``.

    Raises:
        ModelMismatch: they are not of the gallery's model or dimension.
        ValueError: one is not finite or not of unit length.
    """
    if fingerprint != gallery.fingerprint:
        raise ModelMismatch(gallery.name, gallery.fingerprint, fingerprint)
    for vector in vectors:
        if np.shape(vector) != (gallery.dimension,):
            found = "×".join(map(str, np.shape(vector)))
            raise ModelMismatch(gallery.name, f"dimension {gallery.dimension}", f"dimension {found}")
    stacked = np.array(vectors, np.float32).reshape(len(vectors), gallery.dimension)
    norms = np.linalg.norm(stacked.astype(np.float64), axis=1)
    for index in np.flatnonzero(~(np.abs(norms - 1) <= UNIT_NORM_TOLERANCE)):
        raise ValueError(f"vector {index} has norm {norms[index]:.6g}, expected 1 within {UNIT_NORM_TOLERANCE:g}")
    return stacked


def _compared(pair: DuplicatePair, hashes: Mapping[str, str]) -> DuplicatePair:
    first = hashes.get(pair.first.id)
    return replace(pair, identical=first is not None and first == hashes.get(pair.second.id))


@dataclass(frozen=True, slots=True)
class PlannedSearch:
    """A search with the row of its excluded item and the ranking that answers it."""

    search: Search
    excluded: int | None
    request: RankingRequest

    @classmethod
    def of(cls, view: GalleryView, search: Search) -> PlannedSearch:
        """Plan a search over a view."""
        excluded = None if search.exclude is None else view.row_of(search.exclude)
        if search.rerank is not None:
            k = max(search.k, search.rerank.candidates)
            return cls(search, excluded, RankingRequest(search.queries, k, exclude=excluded))
        k = search.k if search.group else search.k + 1  # one more row shows whether there is another page
        floor = -np.inf if search.min_score is None else search.min_score
        return cls(search, excluded, RankingRequest(search.queries, k, floor, search.after, excluded))

    def shares_pass(self, other: PlannedSearch) -> bool:
        """Whether one pass over the vectors answers both. A late page scans far more rows than others need."""
        early = self.search.after is None and other.search.after is None
        return early and self.search.where == other.search.where

    def count_searched(self, allowed: Mask) -> int:
        """Count the items that pass the filter."""
        return int(np.count_nonzero(allowed)) - (self.excluded is not None and bool(allowed[self.excluded]))

    def depth(self, lists: InvertedLists | None, passing: int) -> SearchDepth | None:
        """Return how much of the inverted lists to scan; None: every item that passes.

        Groups contain all their items, and further pages all rows behind a hit, so both are exact.
        """
        search = self.search
        if lists is None or search.exact or search.group or search.after is not None:
            return None
        k = search.k if search.rerank is None else max(search.k, search.rerank.candidates)
        return lists.depth(k, len(search.queries), passing)


def run_searches(view: GalleryView, searches: Sequence[Search]) -> list[SearchResult]:
    """Return the result of each search over a view."""
    plans = [PlannedSearch.of(view, search) for search in searches]
    results: dict[int, SearchResult] = {}
    for numbers in _passes(plans):
        found = _run_pass(view, [plans[number] for number in numbers])
        results.update(zip(numbers, found, strict=True))
    return [results[number] for number in range(len(plans))]


def _passes(plans: Sequence[PlannedSearch]) -> list[list[int]]:
    """Group the positions of searches that share a pass."""
    passes: list[list[int]] = []
    for number, plan in enumerate(plans):
        same = next((numbers for numbers in passes if plan.shares_pass(plans[numbers[0]])), None)
        if same is None:
            passes.append([number])
        else:
            same.append(number)
    return passes


def _run_pass(view: GalleryView, plans: Sequence[PlannedSearch]) -> Iterator[SearchResult]:
    """Run searches that share a pass."""
    allowed = view.allowed(plans[0].search.where)
    depths = [plan.depth(view.lists, int(np.count_nonzero(allowed))) for plan in plans]
    exact = [plan for plan, depth in zip(plans, depths, strict=True) if depth is None and not plan.search.group]
    rankings = iter(rank(view.index, view.ids, allowed, [plan.request for plan in exact]))
    for plan, depth in zip(plans, depths, strict=True):
        searched = plan.count_searched(allowed)
        if plan.search.group:
            best, members = rank_groups(view.index, view.ids, view.identity, allowed, plan.request)
            groups = tuple(Group(h[0].item.identity, h[0].score, h) for h in (_hits(view, part) for part in members))
            yield SearchResult(searched, _hits(view, best), groups)
        elif view.lists is None or depth is None:
            yield _result(view, plan.search, searched, next(rankings))
        else:  # approximate searches scan different lists, so none share a pass
            modality = plan.search.where.modality
            near = view.lists.near(plan.request.queries, allowed, depth, None if modality is None else modality.index)
            (ranking,) = rank(view.index, view.ids, near, [plan.request])
            yield replace(_result(view, plan.search, searched, ranking), recall=depth.recall)


def _result(view: GalleryView, search: Search, searched: int, ranking: Ranking) -> SearchResult:
    if search.rerank is not None:
        return SearchResult(searched, _reranked(view, search, search.rerank, ranking))
    hits = _hits(view, ranking.head(search.k))
    if len(ranking.rows) <= search.k:
        return SearchResult(searched, hits)
    passed = 0 if search.after is None else search.after.rank
    return SearchResult(searched, hits, end=RankingPosition(hits[-1].score, hits[-1].item.id, passed + len(hits)))


def _reranked(view: GalleryView, search: Search, how: Rerank, ranking: Ranking) -> tuple[Hit, ...]:
    """Return the re-ranked candidates, then the others in their order. ``min_score`` removes hits, and moves none."""
    candidates, others = ranking.head(how.candidates), len(ranking.rows[how.candidates :])
    distances = reranked_distances(search.queries, view.index.vectors(candidates.rows), how)
    order = np.concatenate([np.argsort(distances, kind="stable"), len(candidates.rows) + np.arange(others)])
    if search.min_score is not None:
        order = order[ranking.scores[order] >= np.float32(search.min_score)]
    rows, scores = ranking.rows.tolist(), ranking.scores.tolist()
    known: list[float | None] = [*distances.tolist(), *[None] * others]
    return tuple(Hit(view.item(rows[n]), scores[n], known[n]) for n in order[: search.k].tolist())


def _hits(view: GalleryView, ranking: Ranking) -> tuple[Hit, ...]:
    pairs = zip(ranking.rows.tolist(), ranking.scores.tolist(), strict=True)
    return tuple(Hit(view.item(row), score) for row, score in pairs)
