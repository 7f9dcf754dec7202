"""Every index against brute force, and brute force against plain loops."""

from __future__ import annotations

from threading import Event, Thread

import numpy as np
import pytest

from server.domain.types import Vectors, VectorType
from server.index.exact import ExactIndex
from server.index.protocol import BruteForceIndex, BuildIndex, FilterIgnored, Mask, Rows, Scores, check_filter
from tests.server.gallery.builders import score, tied_vectors, unit_vectors

INDEXES: list[BuildIndex] = [BruteForceIndex, ExactIndex]


def _stored(vectors: Vectors, vector_type: VectorType) -> Vectors:
    return vectors.astype(vector_type.dtype).astype(np.float32)


def _masks(count: int) -> dict[str, Mask | None]:
    generator = np.random.default_rng(5)
    return {
        "none": None,
        "all": np.ones(count, np.bool_),
        "nothing": np.zeros(count, np.bool_),
        "tenth": generator.random(count) < 0.1,
        "most": generator.random(count) < 0.9,
        "last": np.arange(count) == count - 1,
        "short": np.ones(count // 2, np.bool_),
    }


@pytest.mark.parametrize("count", [0, 1, 7, 64, 200])
@pytest.mark.parametrize("mask", _masks(0))
def test_brute_force_equals_plain_loops(count: int, mask: str) -> None:
    vectors, queries = tied_vectors(count, kinds=40), unit_vectors(3, seed=9)
    allowed = _masks(count)[mask]
    index = BruteForceIndex(vectors.shape[1])
    index.add(vectors)
    scores, rows = index.search(queries, 10, allowed)
    usable = range(count) if allowed is None else np.flatnonzero(allowed).tolist()
    for query, found, places in zip(queries, scores, rows, strict=True):
        expected = sorted((-score(query, vectors[row]), row) for row in usable)[:10]
        expected += [(np.inf, -1)] * (10 - len(expected))
        assert list(zip((-found).tolist(), places.tolist(), strict=True)) == expected


@pytest.mark.parametrize("mask", _masks(0))
@pytest.mark.parametrize(("count", "dimension"), [(0, 16), (1, 16), (1023, 16), (1025, 33), (5000, 512)])
@pytest.mark.parametrize(("k", "searched"), [(1, 1), (10, 3), (150, 1), (10, 40)])
@pytest.mark.parametrize("vector_type", VectorType)
def test_faiss_equals_brute_force(
    count: int, dimension: int, k: int, searched: int, mask: str, vector_type: VectorType
) -> None:
    vectors, queries = unit_vectors(count, dimension, seed=count), unit_vectors(searched, dimension, seed=99)
    allowed = _masks(count)[mask]
    index, oracle = ExactIndex(dimension, vector_type), BruteForceIndex(dimension, vector_type)
    for part in np.array_split(vectors, 3):
        index.add(part)
        oracle.add(part)
    assert (index.size, index.dimension) == (count, dimension)
    scores, rows = index.search(queries, k, allowed)
    expected, places = oracle.search(queries, k, allowed)
    assert scores.dtype == np.float32
    assert rows.dtype == np.int64
    np.testing.assert_allclose(scores, expected, rtol=0, atol=index.error + oracle.error)
    assert (scores[:, 1:] <= scores[:, :-1]).all()
    np.testing.assert_array_equal(rows < 0, places < 0)
    assert (scores[rows < 0] == -np.inf).all()
    for found in rows:
        kept = found[found >= 0]
        assert len(set(kept.tolist())) == len(kept)
        assert allowed is None or allowed[kept].all()


@pytest.mark.parametrize("build", INDEXES)
@pytest.mark.parametrize("queries", [1, 2, 20, 300])
@pytest.mark.parametrize("vector_type", VectorType)
def test_scores_stay_within_the_stated_error(build: BuildIndex, queries: int, vector_type: VectorType) -> None:
    """The reference uses the stored vectors: their rounding does not count as an error of the index."""
    vectors, probes = unit_vectors(400, 1280), unit_vectors(queries, 1280, seed=3)
    vectors = _stored(vectors, vector_type)
    index = build(1280, vector_type)
    index.add(vectors)
    scores, rows = index.search(probes, 5)
    exact = probes.astype(np.float64) @ vectors.astype(np.float64).T
    assert np.abs(scores - np.take_along_axis(exact, rows, axis=1)).max() <= index.error


@pytest.mark.parametrize("build", INDEXES)
@pytest.mark.parametrize("vector_type", VectorType)
def test_vectors_are_returned_bit_for_bit_in_any_order(build: BuildIndex, vector_type: VectorType) -> None:
    vectors = unit_vectors(5000)
    index = build(vectors.shape[1], vector_type)
    for part in np.array_split(vectors, 7):
        index.add(part)
    rows = np.random.default_rng(0).permutation(5000)[:700]
    np.testing.assert_array_equal(index.vectors(rows), _stored(vectors, vector_type)[rows])
    assert index.vectors(rows).dtype == np.float32
    assert index.vectors(rows[:0]).shape == (0, vectors.shape[1])


@pytest.mark.parametrize("sizes", [[200_000], [5, 70_000, 140_000, 3], [65_536, 1, 65_536]])
def test_vectors_that_fill_segments_are_not_copied(sizes: list[int]) -> None:
    vectors = unit_vectors(sum(sizes), 4)
    index = ExactIndex(4)
    for part in np.split(vectors, np.cumsum(sizes)[:-1]):
        index.add(part)
    np.testing.assert_array_equal(index.vectors(np.arange(len(vectors))), vectors)
    scores, rows = index.search(vectors[-1:], 1)
    assert rows.item() == int(np.argmax(vectors @ vectors[-1]))
    assert scores.item() == pytest.approx(1)


@pytest.mark.parametrize("build", INDEXES)
@pytest.mark.parametrize("vector_type", VectorType)
def test_searches_during_additions_see_all_earlier_rows(build: BuildIndex, vector_type: VectorType) -> None:
    vectors = unit_vectors(6000, 32)
    index = build(32, vector_type)
    index.add(vectors[:100])
    stop = Event()

    def grow() -> None:
        for start in range(100, 6000, 50):
            index.add(vectors[start : start + 50])
        stop.set()

    writer = Thread(target=grow)
    writer.start()
    while not stop.is_set():
        size = index.size
        _, rows = index.search(vectors[[0, size - 1]], 3, np.ones(size, np.bool_))
        assert rows[:, 0].tolist() == [0, size - 1]
        assert rows.max() < size
    writer.join()
    assert index.size == 6000


class IgnoresItsMask(BruteForceIndex):
    """Behaves like FAISS on a GPU without cuVS."""

    def search(self, queries: Vectors, k: int, allowed: Mask | None = None) -> tuple[Scores, Rows]:
        return super().search(queries, k)


class FiltersAfterwards(BruteForceIndex):
    """Ranks all rows, then drops forbidden ones, and so returns too few hits."""

    def search(self, queries: Vectors, k: int, allowed: Mask | None = None) -> tuple[Scores, Rows]:
        scores, rows = super().search(queries, k)
        dropped = np.zeros(rows.shape, np.bool_) if allowed is None else ~np.isin(rows, np.flatnonzero(allowed))
        return np.where(dropped, -np.inf, scores), np.where(dropped, -1, rows)


class FaissPadding(BruteForceIndex):
    """Keeps FAISS's own value for missing entries."""

    def search(self, queries: Vectors, k: int, allowed: Mask | None = None) -> tuple[Scores, Rows]:
        scores, rows = super().search(queries, k, allowed)
        return np.where(rows < 0, np.finfo(np.float32).min, scores), rows


class Inaccurate(BruteForceIndex):
    """Has a larger error than it states."""

    def search(self, queries: Vectors, k: int, allowed: Mask | None = None) -> tuple[Scores, Rows]:
        scores, rows = super().search(queries, k, allowed)
        return scores * np.float32(0.99), rows


@pytest.mark.parametrize("build", INDEXES)
def test_an_index_that_filters_correctly_passes_the_check(build: BuildIndex) -> None:
    check_filter(build)


@pytest.mark.parametrize("build", [IgnoresItsMask, FiltersAfterwards, FaissPadding, Inaccurate])
def test_an_index_that_does_not_filter_exactly_is_refused(build: type[BruteForceIndex]) -> None:
    with pytest.raises(FilterIgnored) as raised:
        check_filter(build)
    assert build.__name__ in str(raised.value)
