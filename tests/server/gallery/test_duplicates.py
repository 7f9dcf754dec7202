"""Near-duplicates: every pair is found once, with its exact score, for any page size."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.card import Modality
from server.domain.types import Filter, NewItem, Vectors
from server.gallery.columns import GalleryView
from server.gallery.duplicates import DuplicatePage, DuplicatePair, PairPosition, find_pairs
from server.gallery.galleries import Galleries
from server.gallery.live_gallery import LiveGallery
from server.index.exact import ExactIndex
from server.storage.sql_store import Store
from tests.server.gallery.builders import (
    DIMENSION,
    FINGERPRINT,
    filters,
    new_items,
    passes,
    score,
    tied_vectors,
    unit_vectors,
)


def live_of(new: list[NewItem]) -> LiveGallery:
    live = LiveGallery(ExactIndex(DIMENSION))
    rows = 3 * np.arange(1, len(new) + 1)
    live.put([one.item for one in new], rows, np.stack([one.vector for one in new]), 1)
    return live


def near_vectors(count: int, *, kinds: int, spread: float, seed: int) -> Vectors:
    """Return unit vectors around a few directions."""
    draw = np.random.default_rng(seed)
    vectors = unit_vectors(kinds, seed=seed)[draw.integers(kinds, size=count)].astype(np.float64)
    vectors += spread * draw.standard_normal(vectors.shape)
    unit: Vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return unit


def walk(view: GalleryView, where: Filter, min_score: float, limit: int, comparisons: int) -> list[DuplicatePair]:
    found: list[DuplicatePair] = []
    place, part = None, None
    for _ in range(1000):
        part = find_pairs(view, where, min_score, limit, place, comparisons)
        assert len(part.pairs) <= limit
        found += part.pairs
        place = part.end
        if place is None:
            assert part.walked == part.items
            return found
    raise AssertionError("the walk does not end")


def keys(pairs: list[DuplicatePair]) -> list[tuple[str, str, float]]:
    return [(pair.first.id, pair.second.id, pair.score) for pair in pairs]


@settings(max_examples=60)
@given(
    seed=st.integers(0, 1000),
    count=st.integers(1, 40),
    min_score=st.sampled_from([-1.0, 0.5, 0.9, 0.98, 1.0]),
    limit=st.integers(1, 50),
    comparisons=st.integers(1, 2000),
    where=filters,
)
def test_pairs_equal_plain_loops(
    seed: int, count: int, min_score: float, limit: int, comparisons: int, where: Filter
) -> None:
    new = new_items(count, vectors=near_vectors(count, kinds=3, spread=0.1, seed=seed))
    live = live_of(new)
    removed = {one.item.id for one in new[::7]}
    live.delete(sorted(removed), 2)
    remaining = [one for one in new if one.item.id not in removed and passes(one.item, where)]
    expected = [
        (a.item.id, b.item.id, value)
        for a, b in itertools.combinations(remaining, 2)
        if (value := score(a.vector, b.vector)) >= min_score
    ]
    assert keys(walk(live.view(), where, min_score, limit, comparisons)) == expected


def test_a_score_equal_to_the_limit_counts() -> None:
    vectors = unit_vectors(2, seed=4)
    exact = score(*vectors)
    view = live_of(new_items(2, vectors=vectors)).view()
    assert len(walk(view, Filter(), exact, 10, 10)) == 1
    assert len(walk(view, Filter(), exact + 1e-9, 10, 10)) == 1  # no float32 lies between
    assert not walk(view, Filter(), float(np.nextafter(np.float32(exact), np.float32(2))), 10, 10)


def test_writes_between_two_calls_move_no_other_pair() -> None:
    new = new_items(12, vectors=near_vectors(12, kinds=1, spread=0.01, seed=1))
    live = live_of(new)
    before = keys(walk(live.view(), Filter(), 0.9, 100, 1000))
    assert len(before) == 12 * 11 / 2
    first = find_pairs(live.view(), Filter(), 0.9, 20)
    last = first.pairs[-1]
    live.delete([last.first.id], 2)  # the cursor stands on a pair of this item
    again = next(one for one in new if one.item.id == "item-009")
    live.put([again.item], np.array([100]), again.vector[np.newaxis], 3)  # replaced: it moves to the end
    live = live.compacted(lambda: ExactIndex(DIMENSION))  # and the places in memory change
    rest, place = list(first.pairs), first.end
    while place is not None:
        part = find_pairs(live.view(), Filter(), 0.9, 20, place)
        rest, place = rest + list(part.pairs), part.end
    changed = {last.first.id, again.item.id}
    assert [key for key in keys(rest)[20:] if not changed & set(key)] == [
        key for key in before[20:] if not changed & set(key)
    ]
    assert keys(rest)[-1][:2] == ("item-011", "item-009")


def test_a_call_makes_at_most_the_allowed_comparisons() -> None:
    view = live_of(new_items(50, vectors=unit_vectors(50, seed=2))).view()
    found = find_pairs(view, Filter(), 0.999, 10, comparisons=150)
    assert found == DuplicatePage((), items=50, walked=3, end=PairPosition(12, 0))
    found = find_pairs(view, Filter(), 0.999, 10, found.end, comparisons=1)  # one item at least
    assert (found.walked, found.end) == (4, PairPosition(15, 0))


def test_items_of_unknown_content_are_not_reported_as_identical(store: Store) -> None:
    galleries = Galleries(store, ExactIndex)
    galleries.catalog.create("g", model="m", fingerprint=FINGERPRINT, dimension=DIMENSION)
    new = new_items(4, vectors=tied_vectors(4, kinds=1))
    contents = ["a" * 64, "a" * 64, None, None]
    made = [replace(one, item=replace(one.item, content=c)) for one, c in zip(new, contents, strict=True)]
    galleries.writer.put("g", made, fingerprint=FINGERPRINT)
    found = galleries.query.duplicates("g", Filter(), 0.9, limit=10)
    assert [pair.identical for pair in found.pairs] == [True, False, False, False, False, False]


@pytest.mark.parametrize("modality", Modality)
def test_an_empty_gallery_has_no_pairs(modality: Modality) -> None:
    view = LiveGallery(ExactIndex(DIMENSION)).view()
    assert find_pairs(view, Filter(modality), 0.9, 10) == DuplicatePage((), 0, 0, None)
