from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from training.evaluation.embeddings import Embeddings
from training.evaluation.metrics import evaluate
from training.evaluation.rerank import KReciprocal, Reranked
from training.evaluation.similarity import Similarity


def unit_vectors(count: int, seed: int, people: int = 6, noise: float = 0.6) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((people, 12))
    vectors = centres[np.arange(count) % people] + noise * rng.standard_normal((count, 12))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32)


def rerank_by_loops(
    query: NDArray[np.float32], gallery: NDArray[np.float32], k1: int, k2: int, weight: float
) -> NDArray[np.float64]:
    """Re-rank by the published procedure with dense distances, sets and loops."""
    everyone = np.concatenate((query, gallery)).astype(np.float64)
    count = len(everyone)
    distance = np.maximum(2 - 2 * everyone @ everyone.T, 0)
    distance /= distance.max(axis=1, keepdims=True)
    ranked = np.argsort(distance, axis=1, kind="stable")

    def reciprocal(i: int, k: int) -> set[int]:
        return {int(j) for j in ranked[i, : k + 1] if i in ranked[j, : k + 1]}

    encoding = np.zeros((count, count))
    for i in range(count):
        near = reciprocal(i, k1)
        expanded = set(near)
        for j in near:
            nearer = reciprocal(j, round(k1 / 2))
            if len(nearer & near) > 2 / 3 * len(nearer):
                expanded |= nearer
        members = sorted(expanded)
        weights = np.exp(-distance[i, members])
        encoding[i, members] = weights / weights.sum()
    averaged = np.stack([encoding[ranked[i, :k2]].mean(axis=0) for i in range(count)])

    result = np.empty((len(query), len(gallery)))
    for q in range(len(query)):
        for g in range(len(gallery)):
            shared = np.minimum(averaged[q], averaged[len(query) + g]).sum()
            jaccard = 1 - shared / (2 - shared)
            result[q, g] = (1 - weight) * jaccard + weight * distance[q, len(query) + g]
    return result


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("k1", "k2", "weight"), [(20, 6, 0.3), (4, 1, 0.3), (7, 3, 0.0), (2, 2, 1.0)])
def test_reranking_equals_plain_loops(seed: int, k1: int, k2: int, weight: float) -> None:
    query, gallery = unit_vectors(13, seed), unit_vectors(47, seed + 100)
    reranked = Reranked(query, gallery, KReciprocal(k1=k1, k2=k2, weight=weight))
    expected = rerank_by_loops(query, gallery, k1, k2, weight)
    np.testing.assert_allclose(reranked(slice(0, 13)), -expected, atol=2e-6)


def test_only_the_candidates_get_a_new_distance_and_the_others_keep_their_order() -> None:
    query, gallery = unit_vectors(9, seed=1), unit_vectors(40, seed=2)
    old = np.argsort(-Similarity(query, gallery)(slice(0, 9)), axis=1, kind="stable")
    everyone = Reranked(query, gallery, KReciprocal(candidates=40))(slice(0, 9))
    nearest = Reranked(query, gallery, KReciprocal(candidates=15))(slice(0, 9))
    new = np.argsort(-nearest, axis=1, kind="stable")
    for row in range(9):
        assert set(new[row, :15]) == set(old[row, :15])
        assert new[row, 15:].tolist() == old[row, 15:].tolist()
        assert nearest[row, old[row, :15]].tolist() == everyone[row, old[row, :15]].tolist()


def test_reranking_does_not_depend_on_the_slice() -> None:
    query, gallery = unit_vectors(11, seed=3), unit_vectors(30, seed=4)
    reranked = Reranked(query, gallery, KReciprocal(k1=5, k2=2))
    whole = reranked(slice(0, 11))
    assert np.array_equal(np.concatenate([reranked(slice(i, i + 4)) for i in (0, 4, 8)]), whole)


def test_reranking_improves_scores_of_agreeing_neighbours() -> None:
    query, gallery = unit_vectors(60, seed=5, noise=1.4), unit_vectors(180, seed=6, noise=1.4)

    def labelled(vectors: NDArray[np.float32]) -> Embeddings:
        count = len(vectors)
        identities = (np.arange(count) % 6).astype(np.str_)
        return Embeddings(vectors, identities, np.full(count, "1"), np.zeros(count, dtype=np.int64))

    plain = evaluate(labelled(query), labelled(gallery))
    again = evaluate(labelled(query), labelled(gallery), scores=Reranked(query, gallery, KReciprocal()))
    assert again.mean_ap > plain.mean_ap + 0.02


def test_a_gallery_smaller_than_the_neighbourhood_is_reranked() -> None:
    query, gallery = unit_vectors(1, seed=7), unit_vectors(2, seed=8)
    np.testing.assert_allclose(
        Reranked(query, gallery, KReciprocal())(slice(0, 1)), -rerank_by_loops(query, gallery, 20, 6, 0.3), atol=2e-6
    )


def test_vectors_without_unit_length_are_rejected() -> None:
    with pytest.raises(ValueError, match="unit"):
        Reranked(2 * unit_vectors(3, seed=0), unit_vectors(3, seed=1), KReciprocal())
