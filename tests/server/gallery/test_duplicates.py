"""Every pair of near items is found once, with its exact score, however the walk is cut up."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.card import Modality
from server.gallery.columns import View
from server.gallery.duplicates import Pair, PairPlace, Pairs, find_pairs
from server.gallery.flat import FaissFlat
from server.gallery.live import LiveGallery
from server.gallery.service import Galleries
from server.gallery.store import Store
from server.gallery.types import Filter, NewItem, Vectors
from tests.server.gallery.making import (
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
    live = LiveGallery(FaissFlat(DIMENSION))
    rows = 3 * np.arange(1, len(new) + 1)
    live.put([one.item for one in new], rows, np.stack([one.vector for one in new]), 1)
    return live


def near_vectors(count: int, *, kinds: int, spread: float, seed: int) -> Vectors:
    """Unit vectors around a few directions."""
    draw = np.random.default_rng(seed)
    vectors = unit_vectors(kinds, seed=seed)[draw.integers(kinds, size=count)].astype(np.float64)
    vectors += spread * draw.standard_normal(vectors.shape)
    unit: Vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return unit


def walk(view: View, where: Filter, min_score: float, limit: int, comparisons: int) -> list[Pair]:
    found: list[Pair] = []
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


def keys(pairs: list[Pair]) -> list[tuple[str, str, float]]:
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
def test_the_pairs_are_those_of_two_loops(
    seed: int, count: int, min_score: float, limit: int, comparisons: int, where: Filter
) -> None:
    new = new_items(count, vectors=near_vectors(count, kinds=3, spread=0.1, seed=seed))
    live = live_of(new)
    gone = {one.item.id for one in new[::7]}
    live.delete(sorted(gone), 2)
    left = [one for one in new if one.item.id not in gone and passes(one.item, where)]
    expected = [
        (a.item.id, b.item.id, value)
        for a, b in itertools.combinations(left, 2)
        if (value := score(a.vector, b.vector)) >= min_score
    ]
    assert keys(walk(live.view(), where, min_score, limit, comparisons)) == expected


def test_a_score_at_the_limit_counts() -> None:
    vectors = unit_vectors(2, seed=4)
    exact = score(*vectors)
    view = live_of(new_items(2, vectors=vectors)).view()
    assert len(walk(view, Filter(), exact, 10, 10)) == 1
    assert len(walk(view, Filter(), exact + 1e-9, 10, 10)) == 1  # no float32 lies between
    assert not walk(view, Filter(), float(np.nextafter(np.float32(exact), np.float32(2))), 10, 10)


def test_what_is_written_between_two_calls_moves_no_other_pair() -> None:
    new = new_items(12, vectors=near_vectors(12, kinds=1, spread=0.01, seed=1))
    live = live_of(new)
    before = keys(walk(live.view(), Filter(), 0.9, 100, 1000))
    assert len(before) == 12 * 11 / 2
    first = find_pairs(live.view(), Filter(), 0.9, 20)
    last = first.pairs[-1]
    live.delete([last.first.id], 2)  # the cursor stands on a pair of this item
    again = next(one for one in new if one.item.id == "item-009")
    live.put([again.item], np.array([100]), again.vector[np.newaxis], 3)  # replaced: it moves to the end
    live = live.compacted(lambda: FaissFlat(DIMENSION))  # and the places in memory change
    rest, place = list(first.pairs), first.end
    while place is not None:
        part = find_pairs(live.view(), Filter(), 0.9, 20, place)
        rest, place = rest + list(part.pairs), part.end
    changed = {last.first.id, again.item.id}
    assert [key for key in keys(rest)[20:] if not changed & set(key)] == [
        key for key in before[20:] if not changed & set(key)
    ]
    assert keys(rest)[-1][:2] == ("item-011", "item-009")


def test_a_call_makes_no_more_comparisons_than_it_may() -> None:
    view = live_of(new_items(50, vectors=unit_vectors(50, seed=2))).view()
    found = find_pairs(view, Filter(), 0.999, 10, comparisons=150)
    assert found == Pairs((), items=50, walked=3, end=PairPlace(12, 0))
    found = find_pairs(view, Filter(), 0.999, 10, found.end, comparisons=1)  # one item at least
    assert (found.walked, found.end) == (4, PairPlace(15, 0))


def test_items_of_unknown_content_are_not_said_to_be_identical(store: Store) -> None:
    galleries = Galleries(store, FaissFlat)
    galleries.create("g", model="m", fingerprint=FINGERPRINT, dimension=DIMENSION)
    new = new_items(4, vectors=tied_vectors(4, kinds=1))
    contents = ["a" * 64, "a" * 64, None, None]
    made = [replace(one, item=replace(one.item, content=c)) for one, c in zip(new, contents, strict=True)]
    galleries.put("g", made, fingerprint=FINGERPRINT)
    found = galleries.duplicates("g", Filter(), 0.9, limit=10)
    assert [pair.identical for pair in found.pairs] == [True, False, False, False, False, False]


@pytest.mark.parametrize("modality", Modality)
def test_an_empty_gallery_has_no_pairs(modality: Modality) -> None:
    view = LiveGallery(FaissFlat(DIMENSION)).view()
    assert find_pairs(view, Filter(modality), 0.9, 10) == Pairs((), 0, 0, None)
