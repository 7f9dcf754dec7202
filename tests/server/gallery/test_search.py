"""Exactness of rankings, fusion and grouping, against plain loops."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.gallery.flat import FaissFlat
from server.gallery.index import BruteForce, Mask, Rows, Scores, VectorIndex
from server.gallery.search import Ranking, fuse, rank, rank_groups
from server.gallery.types import Fusion, Vectors
from tests.server.gallery.making import DIMENSION, score, tied_vectors, unit_vectors


class Coarse(BruteForce):
    """Knows scores only to two digits, as a quantised index does, and says so."""

    error = 0.006

    def search(self, queries: Vectors, k: int, allowed: Mask | None = None) -> tuple[Scores, Rows]:
        scores, rows = super().search(queries, max(k, self.size), allowed)
        rounded = np.round(scores, 2)
        order = np.lexsort((-rows, -rounded), axis=1)[:, :k]  # among equals the wrong way round
        return np.take_along_axis(rounded, order, axis=1), np.take_along_axis(rows, order, axis=1)


INDEXES: list[type[VectorIndex]] = [BruteForce, FaissFlat, Coarse]


def _ids(count: int) -> list[str]:
    """Ids in another order than rows."""
    return [f"i{place:04d}" for place in np.random.default_rng(1).permutation(count)]


def _expected(vectors: Vectors, ids: list[str], queries: Vectors, allowed: Mask) -> list[tuple[int, float]]:
    found = [(row, max(score(query, vectors[row]) for query in queries)) for row in np.flatnonzero(allowed).tolist()]
    return sorted(found, key=lambda hit: (-hit[1], ids[hit[0]]))


def _pairs(ranking: Ranking) -> list[tuple[int, float]]:
    return list(zip(ranking.rows.tolist(), ranking.scores.tolist(), strict=True))


def _index(build: type[VectorIndex], vectors: Vectors) -> VectorIndex:
    index = build(DIMENSION)  # type: ignore[call-arg]
    index.add(vectors)
    return index


cases = st.fixed_dictionaries(
    {
        "count": st.integers(0, 150),
        "kinds": st.sampled_from([1, 3, 20, 1000]),
        "queries": st.integers(1, 4),
        "k": st.sampled_from([1, 2, 5, 40, 1000]),
        "share": st.sampled_from([0.0, 0.1, 0.7, 1.0]),
        "min_score": st.sampled_from([-np.inf, -0.2, 0.0, 0.3, 0.9]),
        "seed": st.integers(0, 1000),
    }
)


def _drawn(case: dict[str, int]) -> tuple[Vectors, list[str], Vectors, Mask]:
    vectors = tied_vectors(case["count"], kinds=case["kinds"], seed=case["seed"])
    allowed = np.random.default_rng(case["seed"]).random(case["count"]) < case["share"]
    return vectors, _ids(case["count"]), unit_vectors(case["queries"], seed=case["seed"] + 1), allowed


@pytest.mark.parametrize("build", INDEXES)
@settings(max_examples=40, deadline=None)
@given(case=cases)
def test_a_ranking_equals_plain_loops_ties_by_id_included(build: type[VectorIndex], case: dict[str, int]) -> None:
    vectors, ids, queries, allowed = _drawn(case)
    found = rank(_index(build, vectors), ids, queries, allowed, case["k"], case["min_score"])
    expected = [hit for hit in _expected(vectors, ids, queries, allowed) if hit[1] >= case["min_score"]]
    assert _pairs(found) == expected[: case["k"]]


@pytest.mark.parametrize("build", INDEXES)
@settings(max_examples=40, deadline=None)
@given(case=cases, people=st.sampled_from([1, 3, 30]))
def test_groups_equal_plain_loops(build: type[VectorIndex], case: dict[str, int], people: int) -> None:
    vectors, ids, queries, allowed = _drawn(case)
    groups = np.random.default_rng(case["seed"]).integers(0, people + 1, case["count"]).astype(np.int32)
    hits, members = rank_groups(_index(build, vectors), ids, groups, queries, allowed, case["k"], case["min_score"])
    ranked = [hit for hit in _expected(vectors, ids, queries, allowed) if hit[1] >= case["min_score"]]
    expected: dict[object, list[tuple[int, float]]] = defaultdict(list)
    for row, value in ranked:
        expected[int(groups[row]) or f"row {row} alone"].append((row, value))
    assert [_pairs(member) for member in members] == list(expected.values())[: case["k"]]
    assert _pairs(hits) == ranked[: case["k"]]


@pytest.mark.parametrize("build", [FaissFlat, Coarse])
def test_ties_at_the_last_place_go_by_id_however_many_there_are(build: type[VectorIndex]) -> None:
    vectors = np.tile(unit_vectors(1), (3000, 1))
    ids = _ids(3000)
    found = rank(_index(build, vectors), ids, vectors[:1], np.ones(3000, np.bool_), 5)
    assert [ids[row] for row in found.rows] == sorted(ids)[:5]


def test_one_identity_that_fills_the_top_does_not_hide_the_others() -> None:
    crowd = np.tile(unit_vectors(1), (4000, 1))
    vectors = np.concatenate([crowd, unit_vectors(3, seed=5)])
    groups = np.array([1] * 4000 + [2, 3, 3], np.int32)
    _, members = rank_groups(_index(FaissFlat, vectors), _ids(4003), groups, crowd[:1], np.ones(4003, np.bool_), 3)
    assert sorted(len(member.rows) for member in members) == [1, 2, 4000]


def test_a_group_found_in_one_round_is_not_found_again_in_the_next() -> None:
    query = unit_vectors(1)
    near = query + 0.01 * unit_vectors(2000, seed=6)
    crowd = (near / np.linalg.norm(near, axis=1, keepdims=True)).astype(np.float32)
    vectors = np.concatenate([crowd, unit_vectors(3, seed=5)])
    groups = np.array([1] * 2000 + [2, 3, 3], np.int32)
    _, members = rank_groups(_index(FaissFlat, vectors), _ids(2003), groups, query, np.ones(2003, np.bool_), 3)
    assert sorted(len(member.rows) for member in members) == [1, 2, 2000]


def test_the_mean_of_queries_is_unit_length_and_points_between_them() -> None:
    queries = unit_vectors(5)
    fused = fuse(queries, Fusion.MEAN)
    expected = [sum(float(query[axis]) for query in queries) for axis in range(DIMENSION)]
    norm = sum(value * value for value in expected) ** 0.5
    np.testing.assert_allclose(fused, [[value / norm for value in expected]], rtol=1e-6)
    assert fused.dtype == np.float32


def test_max_keeps_every_query_and_one_query_stays_as_it_is() -> None:
    np.testing.assert_array_equal(fuse(unit_vectors(3), Fusion.MAX), unit_vectors(3))
    for fusion in Fusion:
        np.testing.assert_array_equal(fuse(unit_vectors(1), fusion), unit_vectors(1))


def test_queries_that_cancel_out_have_no_mean() -> None:
    query = unit_vectors(1)
    with pytest.raises(ValueError, match="cancel out"):
        fuse(np.concatenate([query, -query]), Fusion.MEAN)


def test_a_limit_equal_to_a_score_that_was_answered_keeps_it() -> None:
    vectors = unit_vectors(200)
    index, allowed = _index(FaissFlat, vectors), np.ones(200, np.bool_)
    first = rank(index, _ids(200), vectors[:1], allowed, 30)
    again = rank(index, _ids(200), vectors[:1], allowed, 1000, min_score=first.scores.tolist()[-1])
    assert _pairs(again) == _pairs(first)
