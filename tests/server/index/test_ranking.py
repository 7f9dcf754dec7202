"""Exactness of rankings, fusion and grouping, against plain loops."""

from __future__ import annotations

from collections import defaultdict
from itertools import cycle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.domain.types import Fusion, RankingPosition, Vectors
from server.index.exact import ExactIndex
from server.index.protocol import BruteForceIndex, Mask, Rows, Scores, VectorIndex
from server.index.ranking import Ranking, RankingRequest, fuse, rank, rank_groups
from tests.server.gallery.builders import DIMENSION, score, tied_vectors, unit_vectors


class Coarse(BruteForceIndex):
    """An index with scores of two digits, like a quantised index, which it states as ``error``."""

    error = 0.006

    def search(self, queries: Vectors, k: int, allowed: Mask | None = None) -> tuple[Scores, Rows]:
        scores, rows = super().search(queries, max(k, self.size), allowed)
        rounded = np.round(scores, 2)
        order = np.lexsort((-rows, -rounded), axis=1)[:, :k]  # equal scores in reverse order
        return np.take_along_axis(rounded, order, axis=1), np.take_along_axis(rows, order, axis=1)


INDEXES: list[type[VectorIndex]] = [BruteForceIndex, ExactIndex, Coarse]


def _ids(count: int) -> list[str]:
    """Return ids in a different order than rows."""
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
@settings(max_examples=40)
@given(case=cases)
def test_a_ranking_equals_plain_loops_ties_by_id_included(build: type[VectorIndex], case: dict[str, int]) -> None:
    vectors, ids, queries, allowed = _drawn(case)
    (found,) = rank(_index(build, vectors), ids, allowed, [RankingRequest(queries, case["k"], case["min_score"])])
    expected = [hit for hit in _expected(vectors, ids, queries, allowed) if hit[1] >= case["min_score"]]
    assert _pairs(found) == expected[: case["k"]]


@pytest.mark.parametrize("build", INDEXES)
@settings(max_examples=40)
@given(case=cases, people=st.sampled_from([1, 3, 30]))
def test_groups_equal_plain_loops(build: type[VectorIndex], case: dict[str, int], people: int) -> None:
    vectors, ids, queries, allowed = _drawn(case)
    groups = np.random.default_rng(case["seed"]).integers(0, people + 1, case["count"]).astype(np.int32)
    requested = RankingRequest(
        queries, case["k"], case["min_score"], exclude=case["count"] - 1 if case["count"] else None
    )
    hits, members = rank_groups(_index(build, vectors), ids, groups, allowed, requested)
    allowed[-1:] = False
    ranked = [hit for hit in _expected(vectors, ids, queries, allowed) if hit[1] >= case["min_score"]]
    expected: dict[object, list[tuple[int, float]]] = defaultdict(list)
    for row, value in ranked:
        expected[int(groups[row]) or f"row {row} alone"].append((row, value))
    assert [_pairs(member) for member in members] == list(expected.values())[: case["k"]]
    assert _pairs(hits) == ranked[: case["k"]]


@pytest.mark.parametrize("build", [ExactIndex, Coarse])
def test_ties_at_the_last_rank_are_ordered_by_id(build: type[VectorIndex]) -> None:
    vectors = np.tile(unit_vectors(1), (3000, 1))
    ids = _ids(3000)
    (found,) = rank(_index(build, vectors), ids, np.ones(3000, np.bool_), [RankingRequest(vectors[:1], 5)])
    assert [ids[row] for row in found.rows] == sorted(ids)[:5]


@pytest.mark.parametrize("build", INDEXES)
@settings(max_examples=40)
@given(case=cases, sizes=st.lists(st.integers(1, 60), min_size=1, max_size=3))
def test_pages_together_are_the_complete_ranking(
    build: type[VectorIndex], case: dict[str, int], sizes: list[int]
) -> None:
    vectors, ids, queries, allowed = _drawn(case)
    index, excluded = _index(build, vectors), 0 if case["count"] else None
    together: list[tuple[int, float]] = []
    place = None
    for size in cycle(sizes):
        requested = RankingRequest(queries, size, case["min_score"], place, excluded)
        (page,) = rank(index, ids, allowed, [requested])
        together += _pairs(page)
        if len(page.rows) < size:
            break
        place = RankingPosition(page.scores.tolist()[-1], ids[page.rows[-1]], len(together))
    allowed[:1] = False
    assert together == [hit for hit in _expected(vectors, ids, queries, allowed) if hit[1] >= case["min_score"]]


@pytest.mark.parametrize("build", INDEXES)
@settings(max_examples=30)
@given(case=cases, others=st.lists(st.tuples(st.integers(1, 3), st.sampled_from([1, 7, 200])), max_size=4))
def test_rankings_of_one_pass_equal_separate_rankings(
    build: type[VectorIndex], case: dict[str, int], others: list[tuple[int, int]]
) -> None:
    vectors, ids, queries, allowed = _drawn(case)
    requested = [RankingRequest(queries, case["k"], case["min_score"])]
    requested += [RankingRequest(unit_vectors(count, seed=count + k), k, exclude=3) for count, k in others]
    index = _index(build, vectors)
    together = rank(index, ids, allowed, requested)
    assert [_pairs(found) for found in together] == [_pairs(rank(index, ids, allowed, [one])[0]) for one in requested]


def test_several_rankings_share_one_pass_over_the_vectors() -> None:
    passes = []

    class Counting(BruteForceIndex):
        def search(self, queries: Vectors, k: int, allowed: Mask | None = None) -> tuple[Scores, Rows]:
            passes.append(len(queries))
            return super().search(queries, k, allowed)

    vectors = unit_vectors(500)
    rank(
        _index(Counting, vectors),
        _ids(500),
        np.ones(500, np.bool_),
        [RankingRequest(vectors[n : n + 1], 3) for n in range(9)],
    )
    assert passes == [9]


def test_ids_are_decoded_only_for_ties() -> None:
    class Ids(list[str]):
        asked = 0

        def __getitem__(self, row: object) -> str:
            Ids.asked += 1
            return super().__getitem__(row)  # type: ignore[index, no-any-return]

    vectors = np.concatenate([unit_vectors(3000, seed=1), np.tile(unit_vectors(1, seed=2), (4, 1))])
    rank(
        _index(BruteForceIndex, vectors), Ids(_ids(3004)), np.ones(3004, np.bool_), [RankingRequest(vectors[-1:], 1000)]
    )
    assert Ids.asked < 20


def test_a_page_position_still_divides_a_ranking_that_has_changed() -> None:
    vectors, ids, allowed = unit_vectors(300), _ids(300), np.ones(300, np.bool_)
    index = _index(ExactIndex, vectors)
    (every,) = rank(index, ids, allowed, [RankingRequest(vectors[:1], 300)])
    place = RankingPosition(every.scores.tolist()[9], ids[every.rows[9]], 10)
    allowed[every.rows[5:15]] = False  # the place's own row among them
    (rest,) = rank(index, ids, allowed, [RankingRequest(vectors[:1], 7, after=place)])
    assert _pairs(rest) == _pairs(every)[15:22]


def test_one_identity_that_fills_the_top_does_not_hide_the_others() -> None:
    crowd = np.tile(unit_vectors(1), (4000, 1))
    vectors = np.concatenate([crowd, unit_vectors(3, seed=5)])
    groups = np.array([1] * 4000 + [2, 3, 3], np.int32)
    requested = RankingRequest(crowd[:1], 3)
    _, members = rank_groups(_index(ExactIndex, vectors), _ids(4003), groups, np.ones(4003, np.bool_), requested)
    assert sorted(len(member.rows) for member in members) == [1, 2, 4000]


def test_a_group_is_found_in_one_round_only() -> None:
    query = unit_vectors(1)
    near = query + 0.01 * unit_vectors(2000, seed=6)
    crowd = (near / np.linalg.norm(near, axis=1, keepdims=True)).astype(np.float32)
    vectors = np.concatenate([crowd, unit_vectors(3, seed=5)])
    groups = np.array([1] * 2000 + [2, 3, 3], np.int32)
    _, members = rank_groups(
        _index(ExactIndex, vectors), _ids(2003), groups, np.ones(2003, np.bool_), RankingRequest(query, 3)
    )
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


def test_min_score_equal_to_a_returned_score_keeps_the_hit() -> None:
    vectors = unit_vectors(200)
    index, allowed = _index(ExactIndex, vectors), np.ones(200, np.bool_)
    (first,) = rank(index, _ids(200), allowed, [RankingRequest(vectors[:1], 30)])
    (again,) = rank(index, _ids(200), allowed, [RankingRequest(vectors[:1], 1000, min_score=first.scores.tolist()[-1])])
    assert _pairs(again) == _pairs(first)
