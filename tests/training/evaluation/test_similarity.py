from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray

from training.evaluation.similarity import Similarity


def unit_vectors(count: int, dimension: int, seed: int) -> NDArray[np.float32]:
    vectors = np.random.default_rng(seed).standard_normal((count, dimension))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32)


def on_grid(value: float) -> Fraction:
    return Fraction(round(Fraction(value) * 2**25), 2**25)


def test_a_score_is_the_exact_inner_product_of_the_rounded_vectors() -> None:
    query, gallery = unit_vectors(5, 33, seed=0), unit_vectors(7, 33, seed=1)
    scores = Similarity(query, gallery)(slice(0, 5))
    for q in range(5):
        for g in range(7):
            rounded = (
                [Fraction(round(Fraction(x) * 2**25), 2**25) for x in v.tolist()] for v in (query[q], gallery[g])
            )
            exact = sum(a * b for a, b in zip(*rounded, strict=True))
            assert scores[q, g] == np.float32(float(exact))
            assert abs(scores[q, g] - np.dot(query[q].astype(np.float64), gallery[g])) < 1e-7


@pytest.mark.parametrize("dimension", [1, 63, 1280, 2048])
def test_a_score_does_not_depend_on_its_neighbours(dimension: int) -> None:
    query, gallery = unit_vectors(40, dimension, seed=2), unit_vectors(70, dimension, seed=3)
    whole = Similarity(query, gallery)(slice(0, 40))
    for rows in (slice(0, 1), slice(7, 30), slice(39, 40)):
        assert np.array_equal(Similarity(query, gallery)(rows), whole[rows])
    order = np.random.default_rng(4).permutation(70)
    assert np.array_equal(Similarity(query, gallery[order])(slice(0, 40)), whole[:, order])


def test_equal_images_have_equal_scores_at_every_position() -> None:
    query, gallery = unit_vectors(3, 700, seed=5), unit_vectors(100, 700, seed=6)
    gallery[[13, 57, 99]] = gallery[2]
    scores = Similarity(query, gallery)(slice(0, 3))
    assert (scores[:, [13, 57, 99]] == scores[:, [2]]).all()


@pytest.mark.parametrize("scale", [2.0**-40, 1.0, 3.7, 2.0**30])
def test_vectors_of_any_length_keep_their_order(scale: float) -> None:
    query, gallery = unit_vectors(4, 20, seed=7), unit_vectors(50, 20, seed=8)
    scores = Similarity(query, gallery * np.float32(scale))(slice(0, 4))
    np.testing.assert_allclose(scores, scale * (query @ gallery.T), atol=1e-7 * scale)


def test_zero_vectors_and_empty_galleries_are_scored() -> None:
    nothing = np.zeros((2, 3), np.float32)
    assert not Similarity(nothing, nothing)(slice(0, 2)).any()
    assert Similarity(nothing, np.zeros((0, 3), np.float32))(slice(0, 2)).shape == (2, 0)
