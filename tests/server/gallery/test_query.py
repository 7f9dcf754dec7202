"""Searches of a gallery against plain loops: filters, dead rows, pages, batches, re-ranking."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.card import Modality
from server.domain.errors import GalleryNotFound
from server.domain.types import (
    Filter,
    Fusion,
    NewItem,
    RankingPosition,
    Rerank,
    Search,
    SearchResult,
    Vectors,
    VectorType,
)
from server.gallery.galleries import Galleries
from server.index.exact import ExactIndex
from server.index.ranking import fuse
from server.index.rerank import reranked_distances
from tests.server.gallery import builders
from tests.server.gallery.builders import DIMENSION, FINGERPRINT, expected_hits, found, passes, unit_vectors
from tests.server.memory_store import MemoryStore

VECTORS = unit_vectors(12)

items = st.builds(NewItem, builders.items_strategy, st.sampled_from(list(VECTORS)))
History = list[list[NewItem] | str]

histories: st.SearchStrategy[History] = st.lists(
    st.lists(items, min_size=1, max_size=8) | st.sampled_from(["i0", "i1", "i2", "I1"]), max_size=8
)
queries = st.builds(
    lambda count, seed, fusion: fuse(unit_vectors(count, seed=seed), fusion),
    st.integers(1, 3),
    st.integers(1, 99),
    st.sampled_from(Fusion),
)
searches = st.builds(
    Search,
    queries=queries,
    k=st.sampled_from([1, 2, 3, 100]),
    where=st.sampled_from([Filter(), Filter(modality=Modality.VISIBLE)]) | builders.filters,
    min_score=st.none() | st.sampled_from([-0.3, 0.0, 0.4]),
    exclude=st.none() | builders.ids,
)


@pytest.fixture(scope="module")
def galleries() -> Iterator[Galleries]:
    made = Galleries(MemoryStore(), ExactIndex)
    yield made
    made.close()


def fill(galleries: Galleries, history: History, vector_type: VectorType = VectorType.FLOAT32) -> list[NewItem]:
    """Create the gallery ``g`` again, apply the history, and return its items with vectors as stored."""
    with suppress(GalleryNotFound):
        galleries.catalog.delete("g")
    galleries.catalog.create("g", model="m", fingerprint=FINGERPRINT, dimension=DIMENSION, vector_type=vector_type)
    held: dict[str, NewItem] = {}
    for step in history:
        if isinstance(step, str):
            if held.pop(step, None) is not None:
                galleries.erasure.delete_item("g", step)
        else:
            galleries.writer.put("g", step, fingerprint=FINGERPRINT)
            held.update({new.item.id: replace(new, vector=stored(new.vector, vector_type)) for new in step})
    return list(held.values())


def stored(vector: Vectors, vector_type: VectorType) -> Vectors:
    return vector.astype(vector_type.dtype).astype(np.float32)


def ask(galleries: Galleries, *batch: Search) -> list[SearchResult]:
    return galleries.query.search("g", batch, fingerprint=FINGERPRINT)


def expected(held: list[NewItem], search: Search) -> list[tuple[str, float]]:
    """Return the complete ranking, without ``min_score``."""
    others = [new for new in held if new.item.id != search.exclude]
    return expected_hits(others, search.queries, search.where)


def from_score(hits: list[tuple[str, float]], least: float | None) -> list[tuple[str, float]]:
    return [hit for hit in hits if least is None or np.float32(hit[1]) >= np.float32(least)]


@pytest.mark.parametrize("vector_type", VectorType)
@settings(max_examples=60)
@given(history=histories, batch=st.lists(searches, min_size=1, max_size=4))
def test_every_search_of_a_batch_equals_plain_loops(
    galleries: Galleries, vector_type: VectorType, history: History, batch: list[Search]
) -> None:
    held = fill(galleries, history, vector_type)
    for search, result in zip(batch, ask(galleries, *batch), strict=True):
        ranked = from_score(expected(held, search), search.min_score)
        assert found(result) == ranked[: search.k]
        passing = [new for new in held if new.item.id != search.exclude and passes(new.item, search.where)]
        assert result.searched == len(passing)
        assert {hit.item.id: hit.item for hit in result.hits}.items() <= {new.item.id: new.item for new in held}.items()
        assert (result.end is None) == (len(ranked) <= search.k)


@pytest.mark.parametrize("vector_type", VectorType)
@settings(max_examples=40)
@given(history=histories, search=searches)
def test_pages_together_are_the_complete_result(
    galleries: Galleries, vector_type: VectorType, history: History, search: Search
) -> None:
    held = fill(galleries, history, vector_type)
    together: list[tuple[str, float]] = []
    page: Search | None = search
    while page is not None:
        (result,) = ask(galleries, page)
        together += found(result)
        assert result.end is None or result.end == RankingPosition(together[-1][1], together[-1][0], len(together))
        page = None if result.end is None else replace(page, after=result.end)
    assert together == from_score(expected(held, search), search.min_score)


@settings(max_examples=40)
@given(history=histories, search=searches)
def test_groups_contain_every_item_that_passes_the_filter(
    galleries: Galleries, history: History, search: Search
) -> None:
    held = fill(galleries, history)
    (result,) = ask(galleries, replace(search, group=True))
    identity = {new.item.id: new.item.identity for new in held}
    ranked = from_score(expected(held, search), search.min_score)
    groups: dict[tuple[str | None, str], list[tuple[str, float]]] = defaultdict(list)
    for id, score in ranked:
        groups[identity[id], "" if identity[id] else id].append((id, score))
    assert result.groups is not None
    members = [[(hit.item.id, hit.score) for hit in group.hits] for group in result.groups]
    assert members == list(groups.values())[: search.k]
    assert found(result) == ranked[: search.k]
    assert result.end is None


@settings(max_examples=50)
@given(history=histories, search=searches, candidates=st.sampled_from([1, 3, 50]))
def test_candidates_are_reranked_others_follow_and_min_score_only_removes_hits(
    galleries: Galleries, history: History, search: Search, candidates: int
) -> None:
    held = fill(galleries, history)
    how = Rerank(candidates=candidates, k1=3, k2=2)
    (result,) = ask(galleries, replace(search, rerank=how))
    ranked = expected(held, search)
    vectors = {new.item.id: new.vector for new in held}
    near = ranked[:candidates]
    distances = reranked_distances(
        search.queries,
        np.array([vectors[id] for id, _ in near], np.float32).reshape(len(near), DIMENSION),
        how,
    ).tolist()
    order = sorted(range(len(near)), key=lambda n: (distances[n], n))
    every = [(*near[n], distances[n]) for n in order] + [(*hit, None) for hit in ranked[candidates:]]
    kept = [hit for hit in every if search.min_score is None or np.float32(hit[1]) >= np.float32(search.min_score)][
        : search.k
    ]
    assert [(hit.item.id, hit.score, hit.rerank_distance) for hit in result.hits] == kept
    assert result.end is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k ≥ 1"),
        ({"queries": np.empty((0, DIMENSION), np.float32)}, "at least one query"),
        ({"group": True, "rerank": Rerank()}, "at most one of group, after and rerank"),
        ({"group": True, "after": RankingPosition(0.5, "i", 3)}, "at most one of group, after and rerank"),
        ({"rerank": Rerank(), "after": RankingPosition(0.5, "i", 3)}, "at most one of group, after and rerank"),
    ],
)
def test_an_invalid_search_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Search(**{"queries": VECTORS[:1], **options})  # type: ignore[arg-type]
