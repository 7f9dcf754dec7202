"""One-byte codes: searches that read them give the hits and scores of searches that read all vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.domain.types import StoredVectors, Vectors, VectorType
from server.index import codes, exact
from server.index.codes import CodedScan, encode
from server.index.exact import ExactIndex
from server.index.kernels import FaissScan, MatrixScan
from server.index.protocol import BruteForceIndex
from server.index.ranking import RankingRequest, rank
from tests.server.gallery.builders import unit_vectors


@pytest.fixture(scope="module", autouse=True)
def _small_segments() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exact, "_MIN_CODED_ROWS", 64)
        patch.setattr(exact, "_MIN_SEGMENT_ROWS", 64)
        patch.setattr(codes, "_BLOCK", 64)
        patch.setattr(codes, "_PAYS", dict.fromkeys(VectorType, True))
        yield


def _encoded(vectors: Vectors, vector_type: VectorType) -> ExactIndex:
    """Return an index of ``vectors`` whose full segments all have codes."""
    index = ExactIndex(vectors.shape[1], vector_type)
    for part in np.array_split(vectors, 2):
        index.add(part)
    index.encode()
    return index


def _spread(count: int, dimension: int, generator: np.random.Generator) -> Vectors:
    return generator.standard_normal((count, dimension)).astype(np.float32)


def _one_large_component(count: int, dimension: int, generator: np.random.Generator) -> Vectors:
    vectors = 1e-3 * _spread(count, dimension, generator)
    vectors[np.arange(count), generator.integers(dimension, size=count)] = 1
    return vectors


def _nearly_equal(count: int, dimension: int, generator: np.random.Generator) -> Vectors:
    return np.ones((count, dimension), np.float32) + 1e-3 * _spread(count, dimension, generator)


def _few_different(count: int, dimension: int, generator: np.random.Generator) -> Vectors:
    return _spread(3, dimension, generator)[generator.integers(3, size=count)]


def _halves_of_a_unit(count: int, dimension: int, generator: np.random.Generator) -> Vectors:
    """Return vectors whose components lie halfway between two codes: the largest errors that rounding makes."""
    vectors = generator.integers(-126, 126, (count, dimension)).astype(np.float32) + np.float32(0.5)
    vectors[:, 0] = 127
    return vectors


def _opposite(count: int, dimension: int, generator: np.random.Generator) -> Vectors:
    return -np.abs(_spread(count, dimension, generator))


KINDS: list[Callable[[int, int, np.random.Generator], Vectors]] = [
    _spread, _one_large_component, _nearly_equal, _few_different, _halves_of_a_unit, _opposite
]  # fmt: skip

cases = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(KINDS),
        "count": st.integers(128, 900),
        "dimension": st.sampled_from([1, 2, 16, 33, 128, 512]),
        "queries": st.sampled_from([1, 2, 5, 20]),
        "near": st.booleans(),
        "k": st.sampled_from([1, 10, 60, 1000]),
        "share": st.sampled_from([0.31, 0.7, 1.0]),
        "vector_type": st.sampled_from(list(VectorType)),
        "seed": st.integers(0, 10_000),
    }
)


def _unit(vectors: Vectors) -> Vectors:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def _check_equal(case: dict[str, Any]) -> None:
    generator = np.random.default_rng(case["seed"])
    vectors = _unit(case["kind"](case["count"], case["dimension"], generator))
    queries = (
        vectors[: case["queries"]] if case["near"] else _unit(_spread(case["queries"], case["dimension"], generator))
    )
    allowed = generator.random(case["count"]) < case["share"]
    ids = [f"i{place:04d}" for place in generator.permutation(case["count"])]
    index, oracle = _encoded(vectors, case["vector_type"]), BruteForceIndex(case["dimension"], case["vector_type"])
    oracle.add(vectors)
    request = RankingRequest(queries, case["k"])
    (found,), (expected,) = (rank(one, ids, allowed, [request]) for one in (index, oracle))
    np.testing.assert_array_equal(found.rows, expected.rows)
    np.testing.assert_array_equal(found.scores, expected.scores)


@settings(max_examples=150)
@given(case=cases)
def test_rankings_from_codes_equal_brute_force(case: dict[str, Any]) -> None:
    _check_equal(case)


@pytest.mark.slow
@settings(max_examples=100_000, deadline=None)
@given(case=cases)
def test_many_rankings_from_codes_equal_brute_force(case: dict[str, Any]) -> None:
    _check_equal(case)


@settings(max_examples=100)
@given(kind=st.sampled_from(KINDS), dimension=st.sampled_from([1, 16, 512]), seed=st.integers(0, 10_000))
def test_codes_are_within_their_stated_error(
    kind: Callable[[int, int, np.random.Generator], Vectors], dimension: int, seed: int
) -> None:
    vectors = _unit(kind(200, dimension, np.random.default_rng(seed)))
    encoded = encode(vectors)
    errors = vectors.astype(np.float64) - encoded.codes * encoded.scales[:, np.newaxis].astype(np.float64)
    assert (np.linalg.norm(errors, axis=1) <= encoded.error * encoded.scales).all()
    assert (np.linalg.norm(vectors.astype(np.float64), axis=1) <= encoded.length).all()
    assert encoded.error <= 0.51 * dimension**0.5


@pytest.mark.parametrize("vector_type", VectorType)
@pytest.mark.parametrize("searched", [1, 16])
def test_few_vectors_are_read_where_scores_differ(vector_type: VectorType, searched: int) -> None:
    read: list[int] = []

    class Counting(FaissScan if searched == 1 else MatrixScan):  # type: ignore[misc]
        def scan(self, vectors: StoredVectors, rows: Any) -> None:
            read.append(len(rows))
            super().scan(vectors, rows)

    vectors = unit_vectors(20_000, 128).astype(vector_type.dtype)
    queries = unit_vectors(searched, 128, seed=1)
    with Counting(vector_type, queries, 10, None) as scan:
        CodedScan(scan, queries, None, exact.scan_error(128, vector_type)).scan(encode(vectors), vectors, 0)
    assert sum(read) < len(vectors) / 4


def test_codes_are_encoded_by_searches_and_only_of_full_segments() -> None:
    index = ExactIndex(16)
    index.add(unit_vectors(64, 16))
    index.add(unit_vectors(100, 16, seed=1))  # begins a segment of as many rows or more
    index.add(unit_vectors(3, 16, seed=2))
    assert index._codes is not None
    assert index._codes.get(0) is None
    for _ in index._segments:
        index.search(unit_vectors(1, 16), 3)
        assert index._codes._task is not None
        index._codes._task.result()
    full = [start + len(segment) <= index.size for start, segment in zip(index._starts, index._segments, strict=True)]
    assert [index._codes.get(number) is not None for number in range(len(full))] == full
    assert full[0]
    assert not full[-1]


def test_without_codes_none_are_encoded() -> None:
    index = ExactIndex(16, codes=False)
    index.add(unit_vectors(64, 16))
    index.search(unit_vectors(1, 16), 3)
    assert index._codes is None


def test_codes_that_are_slower_than_vectors_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codes, "_PAYS", {})
    monkeypatch.setattr(codes, "_pays", lambda *_: False)
    index = _encoded(unit_vectors(64, 16), VectorType.FLOAT16)
    index.search(unit_vectors(1, 16), 3)
    assert index._codes is not None
    assert index._codes.get(0) is None
    assert index._codes._task is None
