"""The exact index against brute force, with small blocks and several threads."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.domain.types import StoredVectors, VectorType
from server.index import exact as exact
from server.index import kernels as kernels
from server.index.exact import ExactIndex
from server.index.protocol import BruteForceIndex, Mask
from server.index.ranking import RankingRequest, rank, rank_groups
from tests.server.gallery.builders import unit_vectors

CORES = 3


@pytest.fixture(scope="module", autouse=True)
def _cut_small() -> Iterator[None]:
    """Reduce the limits, so that a few rows need several threads, blocks and gathered copies."""
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(CORES) as pool:
        patch.setattr(exact, "_CORES", CORES)
        patch.setattr(exact, "_POOL", pool)
        patch.setattr(exact, "_SINGLE_THREAD_BYTES", 512)
        patch.setattr(exact, "_MIN_BLOCK_BYTES", 128)
        patch.setattr(exact, "_GATHER_BYTES", 256)
        patch.setattr(kernels, "_BLOCK", 20)
        patch.setattr(kernels, "_SELECTION_SCORES", 32)
        yield


cases = st.fixed_dictionaries(
    {
        "count": st.integers(0, 1500),
        "dimension": st.sampled_from([1, 16, 33, 128]),
        "kinds": st.sampled_from([1, 3, 40, 3000]),
        "queries": st.sampled_from([1, 2, 5, 40]),
        "k": st.sampled_from([1, 10, 60, 2000]),
        "share": st.sampled_from([0.0, 0.01, 0.05, 0.3, 0.7, 1.0]),
        "together": st.booleans(),
        "min_score": st.sampled_from([-np.inf, 0.0, 0.9]),
        "vector_type": st.sampled_from(list(VectorType)),
        "seed": st.integers(0, 1000),
    }
)


@given(st.integers(1, 3000), st.integers(1, 200), st.integers(1, 5))
def test_blocks_contain_all_rows_once_in_order(size: int, least: int, threads: int) -> None:
    index = ExactIndex(1)
    index.add(np.arange(3000, dtype=np.float32)[:, np.newaxis])
    index.add(np.arange(3000, 3500, dtype=np.float32)[:, np.newaxis])
    parts = index._blocks(size, least, threads)
    rows = [np.arange(part.first, part.first + len(part.vectors)) for part in parts]
    np.testing.assert_array_equal(np.concatenate(rows), np.arange(size))
    np.testing.assert_array_equal(np.concatenate([part.vectors[:, 0] for part in parts]), np.arange(size))
    assert len(parts) > 1 or size <= max(least, size // threads)


def _mask(count: int, share: float, *, together: bool, seed: int) -> Mask:
    generator = np.random.default_rng(seed)
    if not together:
        return generator.random(count) < share
    first = int(generator.integers(0, count + 1))
    places = np.arange(count)
    return (places >= first) & (places < first + share * count)


@settings(max_examples=60)
@given(case=cases)
def test_rankings_equal_brute_force(case: dict[str, Any]) -> None:
    count, kind = case["count"], case["vector_type"]
    different = unit_vectors(case["kinds"], case["dimension"], seed=case["seed"])
    vectors = different[np.random.default_rng(case["seed"]).integers(case["kinds"], size=count)]
    queries = unit_vectors(case["queries"], case["dimension"], seed=case["seed"] + 1)
    queries[0] = vectors[0] if count else queries[0]
    allowed = _mask(count, case["share"], together=case["together"], seed=case["seed"])
    ids = [f"i{place:04d}" for place in np.random.default_rng(1).permutation(count)]
    groups = np.random.default_rng(case["seed"]).integers(0, 4, count).astype(np.int32)
    index, oracle = ExactIndex(case["dimension"], kind), BruteForceIndex(case["dimension"], kind)
    for part in np.array_split(vectors, 3):
        index.add(part)
        oracle.add(part)
    request = RankingRequest(queries, case["k"], case["min_score"])
    (found,), (expected,) = (rank(one, ids, allowed, [request]) for one in (index, oracle))
    np.testing.assert_array_equal(found.rows, expected.rows)
    np.testing.assert_array_equal(found.scores, expected.scores)
    grouped, by_hand = (rank_groups(one, ids, groups, allowed, request)[0] for one in (index, oracle))
    np.testing.assert_array_equal(grouped.rows, by_hand.rows)


@pytest.mark.parametrize("vector_type", VectorType)
@pytest.mark.parametrize("share", [0.02, 0.2, 0.7, 1.0])
@pytest.mark.parametrize("searched", [1, 6, 40])
def test_every_allowed_row_is_found_once(vector_type: VectorType, share: float, searched: int) -> None:
    vectors = unit_vectors(3000, 16)
    index = ExactIndex(16, vector_type)
    index.add(vectors)
    allowed = _mask(3000, share, together=False, seed=4)
    _, rows = index.search(vectors[:searched], 3000, allowed)
    for found in rows:
        assert sorted(found[found >= 0].tolist()) == np.flatnonzero(allowed).tolist()


@pytest.mark.parametrize("searched", [1, 4])
def test_float16_rounding_stays_within_the_stated_error(searched: int) -> None:
    vectors = np.full((400, 64), 3e-7, np.float32)
    vectors[:, 0] = 1 - np.linspace(0, 0.2, 400)
    index = ExactIndex(64, VectorType.FLOAT16)
    index.add(vectors)
    scores, rows = index.search(vectors[:searched], 5)
    exact = vectors[:searched].astype(np.float64) @ vectors.astype(np.float16).astype(np.float64).T
    assert np.abs(scores - np.take_along_axis(exact, rows, axis=1)).max() <= index.error


@pytest.mark.parametrize("searched", [1, 4])
def test_concurrent_searches_get_their_own_results(searched: int) -> None:
    vectors = unit_vectors(3000, 32)
    index = ExactIndex(32, VectorType.FLOAT16)
    index.add(vectors)
    ids, allowed = [f"{row:04d}" for row in range(3000)], np.ones(3000, np.bool_)
    requests = [RankingRequest(vectors[start : start + searched], 20) for start in range(0, 40 * searched, searched)]
    oracle = BruteForceIndex(32, VectorType.FLOAT16)
    oracle.add(vectors)
    expected = rank(oracle, ids, allowed, requests)
    begin = Barrier(8)

    def search(first: int) -> None:
        begin.wait()
        for request, ranking in zip(requests[first::8], expected[first::8], strict=True):
            (found,) = rank(index, ids, allowed, [request])
            np.testing.assert_array_equal(found.rows, ranking.rows)
            np.testing.assert_array_equal(found.scores, ranking.scores)

    with ThreadPoolExecutor(8) as callers:
        list(callers.map(search, range(8)))


def test_an_error_in_a_thread_fails_only_its_search(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = unit_vectors(3000, 32)
    index = ExactIndex(32)
    index.add(vectors)
    with monkeypatch.context() as patch:
        patch.setattr(kernels.FaissScan, "scan", _fails)
        with pytest.raises(MemoryError, match="no more"):
            index.search(vectors[:1], 5)
    _, rows = index.search(vectors[7:8], 5)
    assert rows[0, 0] == 7


def _fails(_scan: kernels.FaissScan, _vectors: StoredVectors, _rows: object) -> None:
    raise MemoryError("no more")


def test_every_scanner_of_faiss_is_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    freed: list[object] = []
    make: Any = faiss.IndexIVF.get_InvertedListScanner
    scanner_type: Any = faiss.InvertedListScanner  # type: ignore[attr-defined]  # the stubs lack it
    free = scanner_type.__swig_destroy__

    def build_scanner(*args: object) -> object:
        made.append(make(*args))
        return made[-1]

    def freeing(scanner: object) -> None:
        freed.append(scanner)
        free(scanner)

    for kind in (faiss.IndexIVFFlat, faiss.IndexIVFScalarQuantizer):
        monkeypatch.setattr(kind, "get_InvertedListScanner", build_scanner)
    monkeypatch.setattr(scanner_type, "__swig_destroy__", freeing)
    vectors = unit_vectors(3000, 32)
    index = ExactIndex(32)
    index.add(vectors)
    index.search(vectors[:1], 5)
    assert 1 <= len(made) <= CORES  # who comes too late makes none
    assert {id(one) for one in made} == {id(one) for one in freed}
