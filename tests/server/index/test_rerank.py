"""Re-ranking against the published procedure, written with sets and loops."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from server.domain.types import Rerank, Vectors
from server.index.rerank import reranked_distances
from tests.server.gallery.builders import unit_vectors


def people(count: int, *, seed: int, noise: float = 0.6) -> Vectors:
    """Return unit vectors of six people alternately."""
    centres = np.random.default_rng(99).standard_normal((6, 12))
    vectors = centres[np.arange(count) % 6] + noise * np.random.default_rng(seed).standard_normal((count, 12))
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def by_loops(queries: Vectors, candidates: Vectors, how: Rerank) -> NDArray[np.float64]:
    """Compute the distances of Zhong et al. with sets and loops; the smallest over the queries."""
    everyone = np.concatenate([queries, candidates]).astype(np.float64)
    count = len(everyone)
    distance = np.maximum(2 - 2 * everyone @ everyone.T, 0)
    distance /= distance.max(axis=1, keepdims=True)
    ranked = [sorted(range(count), key=lambda j, i=i: (j != i, distance[i, j], j)) for i in range(count)]

    def reciprocal(i: int, k: int) -> set[int]:
        return {j for j in ranked[i][: k + 1] if i in ranked[j][: k + 1]}

    encoding = np.zeros((count, count))
    for i in range(count):
        near = reciprocal(i, how.k1)
        expanded = set(near)
        for j in near:
            nearer = reciprocal(j, round(how.k1 / 2))
            if len(nearer & near) > 2 / 3 * len(nearer):
                expanded |= nearer
        total = sum(np.exp(-distance[i, j]) for j in expanded)
        for j in expanded:
            encoding[i, j] = np.exp(-distance[i, j]) / total
    averaged = [np.mean([encoding[j] for j in ranked[i][: how.k2]], axis=0) for i in range(count)]

    result = np.full(len(candidates), np.inf)
    for c in range(len(candidates)):
        for q in range(len(queries)):
            shared = sum(min(a, b) for a, b in zip(averaged[q], averaged[len(queries) + c], strict=True))
            jaccard = 1 - shared / (2 - shared)
            result[c] = min(result[c], (1 - how.lambda_) * jaccard + how.lambda_ * distance[q, len(queries) + c])
    return result


@pytest.mark.parametrize("queries", [1, 3])
@pytest.mark.parametrize(("k1", "k2", "lambda_"), [(20, 6, 0.3), (4, 1, 0.3), (7, 3, 0.0), (2, 2, 1.0)])
def test_distances_equal_plain_loops(queries: int, k1: int, k2: int, lambda_: float) -> None:
    how = Rerank(k1=k1, k2=k2, lambda_=lambda_)
    for seed, count in enumerate((1, 2, 18, 47)):
        query, candidates = people(queries, seed=seed), people(count, seed=seed + 100)
        found = reranked_distances(query, candidates, how)
        np.testing.assert_allclose(found, by_loops(query, candidates, how), atol=1e-6)


def test_more_equal_vectors_than_neighbours_get_equal_distances() -> None:
    """A vector is always its own neighbour, even if others are equally near, so no set is empty."""
    twins = np.tile(unit_vectors(1), (40, 1))
    candidates = np.concatenate([twins, unit_vectors(5, seed=3)])
    how = Rerank(k1=4, k2=2)
    found = reranked_distances(twins[:1], candidates, how)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, by_loops(twins[:1], candidates, how), atol=1e-6)


def test_reranking_handles_equal_vectors_and_no_candidates() -> None:
    same = unit_vectors(1)
    assert reranked_distances(same, np.tile(same, (3, 1)), Rerank()).tolist() == [0, 0, 0]
    assert reranked_distances(same, np.empty((0, same.shape[1]), np.float32), Rerank()).shape == (0,)


def test_candidates_that_agree_with_each_other_come_nearer() -> None:
    right_before = right_after = 0
    for seed in range(30):
        query, candidates = people(1, seed=seed, noise=0.8), people(120, seed=seed + 500, noise=0.8)
        cosine = candidates @ query[0]
        distances = reranked_distances(query, candidates, Rerank())
        right_before += int((np.argsort(-cosine)[:20] % 6 == 0).sum())
        right_after += int((np.argsort(distances)[:20] % 6 == 0).sum())
    assert right_after > 1.1 * right_before
