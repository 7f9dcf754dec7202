"""Whole searches of a gallery against plain loops: filters and negations, dead rows, pages, batches, re-ranking."""

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
from server.errors import GalleryNotFound
from server.gallery.flat import FaissFlat
from server.gallery.memory import MemoryStore
from server.gallery.rerank import reranked_distances
from server.gallery.search import fuse
from server.gallery.service import Galleries
from server.gallery.types import Filter, Fusion, NewItem, Place, Rerank, Search, SearchResult, Vectors, VectorType
from tests.server.gallery import making
from tests.server.gallery.making import DIMENSION, FINGERPRINT, expected_hits, found, passes, unit_vectors

VECTORS = unit_vectors(12)

items = st.builds(NewItem, making.items_strategy, st.sampled_from(list(VECTORS)))
History = list[list[NewItem] | str]

histories: st.SearchStrategy[History] = st.lists(
    st.lists(items, min_size=1, max_size=8) | st.sampled_from(["i0", "i1", "i2", "I1"]), max_size=8
)
queries = st.builds(lambda count, seed: unit_vectors(count, seed=seed), st.integers(1, 3), st.integers(1, 99))
searches = st.builds(
    Search,
    queries=queries,
    k=st.sampled_from([1, 2, 3, 100]),
    where=st.sampled_from([Filter(), Filter(modality=Modality.VISIBLE)]) | making.filters,
    fusion=st.sampled_from(Fusion),
    min_score=st.none() | st.sampled_from([-0.3, 0.0, 0.4]),
    exclude=st.none() | making.ids,
)


@pytest.fixture(scope="module")
def galleries() -> Iterator[Galleries]:
    made = Galleries(MemoryStore(), FaissFlat)
    yield made
    made.close()


def fill(galleries: Galleries, history: History, vector_type: VectorType = VectorType.FLOAT32) -> list[NewItem]:
    """Make the gallery ``g`` anew, put (replacing too) and delete, and return what it holds, vectors as stored."""
    with suppress(GalleryNotFound):
        galleries.delete("g")
    galleries.create("g", model="m", fingerprint=FINGERPRINT, dimension=DIMENSION, vector_type=vector_type)
    held: dict[str, NewItem] = {}
    for step in history:
        if isinstance(step, str):
            if held.pop(step, None) is not None:
                galleries.delete_item("g", step)
        else:
            galleries.put("g", step, fingerprint=FINGERPRINT)
            held.update({new.item.id: replace(new, vector=stored(new.vector, vector_type)) for new in step})
    return list(held.values())


def stored(vector: Vectors, vector_type: VectorType) -> Vectors:
    return vector.astype(vector_type.dtype).astype(np.float32)


def ask(galleries: Galleries, *wanted: Search) -> list[SearchResult]:
    return galleries.search("g", wanted, fingerprint=FINGERPRINT)


def expected(held: list[NewItem], search: Search) -> list[tuple[str, float]]:
    """The whole ranking, ``min_score`` aside."""
    others = [new for new in held if new.item.id != search.exclude]
    return expected_hits(others, fuse(search.queries, search.fusion), search.where)


def from_score(hits: list[tuple[str, float]], least: float | None) -> list[tuple[str, float]]:
    return [hit for hit in hits if least is None or np.float32(hit[1]) >= np.float32(least)]


@pytest.mark.parametrize("vector_type", VectorType)
@settings(max_examples=60)
@given(history=histories, wanted=st.lists(searches, min_size=1, max_size=4))
def test_every_search_of_a_batch_equals_plain_loops(
    galleries: Galleries, vector_type: VectorType, history: History, wanted: list[Search]
) -> None:
    held = fill(galleries, history, vector_type)
    for search, result in zip(wanted, ask(galleries, *wanted), strict=True):
        ranked = from_score(expected(held, search), search.min_score)
        assert found(result) == ranked[: search.k]
        passing = [new for new in held if new.item.id != search.exclude and passes(new.item, search.where)]
        assert result.searched == len(passing)
        assert {hit.item.id: hit.item for hit in result.hits}.items() <= {new.item.id: new.item for new in held}.items()
        assert (result.end is None) == (len(ranked) <= search.k)


@pytest.mark.parametrize("vector_type", VectorType)
@settings(max_examples=40)
@given(history=histories, search=searches)
def test_pages_put_together_are_the_whole_answer(
    galleries: Galleries, vector_type: VectorType, history: History, search: Search
) -> None:
    held = fill(galleries, history, vector_type)
    together: list[tuple[str, float]] = []
    page: Search | None = search
    while page is not None:
        (result,) = ask(galleries, page)
        together += found(result)
        assert result.end is None or result.end == Place(together[-1][1], together[-1][0], len(together))
        page = None if result.end is None else replace(page, after=result.end)
    assert together == from_score(expected(held, search), search.min_score)


@settings(max_examples=40)
@given(history=histories, search=searches)
def test_groups_hold_every_item_that_passes(galleries: Galleries, history: History, search: Search) -> None:
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
def test_candidates_are_reranked_the_rest_follows_and_a_least_score_only_takes_away(
    galleries: Galleries, history: History, search: Search, candidates: int
) -> None:
    held = fill(galleries, history)
    how = Rerank(candidates=candidates, k1=3, k2=2)
    (result,) = ask(galleries, replace(search, rerank=how))
    ranked = expected(held, search)
    vectors = {new.item.id: new.vector for new in held}
    near = ranked[:candidates]
    distances = reranked_distances(
        fuse(search.queries, search.fusion),
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
        ({"group": True, "after": Place(0.5, "i", 3)}, "at most one of group, after and rerank"),
        ({"rerank": Rerank(), "after": Place(0.5, "i", 3)}, "at most one of group, after and rerank"),
    ],
)
def test_a_search_that_means_nothing_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Search(**{"queries": VECTORS[:1], **options})  # type: ignore[arg-type]
