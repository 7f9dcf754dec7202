from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.card import Modality
from tests.training.evaluation.virtual import VirtualRecord
from training.evaluation.embeddings import Embeddings, Labelled
from training.evaluation.flip import join_mirrored

RECORDS: list[Labelled] = [VirtualRecord(Path(f"{n}.png"), f"p{n % 3}", "1", list(Modality)[n % 2]) for n in range(7)]


def test_rows_are_taken_in_the_given_order() -> None:
    found = Embeddings.of(np.array([[n, n % 2] for n in range(7)], np.float32), RECORDS)
    taken = found.take(np.array([5, 0]))
    assert isinstance(taken, Embeddings)
    assert taken.vectors[:, 0].tolist() == [5, 0]
    assert taken.identities.tolist() == ["p2", "p0"]


def test_the_flip_test_ignores_the_length_of_its_vectors() -> None:
    rng = np.random.default_rng(0)
    vectors, mirrored = (rng.standard_normal((6, 8)).astype(np.float32) for _ in range(2))
    joined = join_mirrored(vectors, mirrored)
    np.testing.assert_allclose(np.linalg.norm(joined, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(join_mirrored(3 * vectors, mirrored), joined, atol=1e-6)
    np.testing.assert_array_equal(join_mirrored(mirrored, vectors), joined)
    for row in range(6):
        half = vectors[row] / np.linalg.norm(vectors[row]) + mirrored[row] / np.linalg.norm(mirrored[row])
        np.testing.assert_allclose(joined[row], half / np.linalg.norm(half), atol=1e-6)


def test_zero_vectors_and_missing_mirrored_vectors_are_rejected() -> None:
    ones = np.ones((2, 3), np.float32)
    with pytest.raises(ValueError, match="length 0"):
        join_mirrored(ones, np.zeros_like(ones))
    with pytest.raises(ValueError, match="length 0"):
        join_mirrored(ones, -ones)
    with pytest.raises(ValueError, match="mirrored"):
        join_mirrored(ones, ones[:1])
