from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from models.card import Modality
from training.evaluation.embeddings import Embeddings, Labelled, embed_records
from training.evaluation.flip import join_mirrored

from .virtual import VirtualRecord

RECORDS: list[Labelled] = [VirtualRecord(Path(f"{n}.png"), f"p{n % 3}", "1", list(Modality)[n % 2]) for n in range(7)]


def load(record: Labelled) -> NDArray[np.uint8]:
    return np.full((4, 2, 3), int(record.path.stem), np.uint8)


def first_pixel_and_modality(images: NDArray[np.uint8], modalities: NDArray[np.int64]) -> NDArray[np.float32]:
    return np.stack([images[:, 0, 0, 0], modalities], axis=1).astype(np.float32)


@pytest.mark.parametrize("batch", [1, 3, 100])
def test_every_image_is_embedded_as_one_of_its_own_modality(batch: int) -> None:
    found = embed_records(RECORDS, load, first_pixel_and_modality, batch=batch)
    assert found.vectors.tolist() == [[n, n % 2] for n in range(7)]
    assert found.modalities.tolist() == [n % 2 for n in range(7)]
    assert found.identities.tolist() == [f"p{n % 3}" for n in range(7)]


def test_no_record_is_no_embedding() -> None:
    with pytest.raises(ValueError, match="found none"):
        embed_records([], load, first_pixel_and_modality)


def test_rows_are_taken_in_the_order_asked_for() -> None:
    found = embed_records(RECORDS, load, first_pixel_and_modality)
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


def test_vectors_without_length_or_partner_are_refused() -> None:
    ones = np.ones((2, 3), np.float32)
    with pytest.raises(ValueError, match="length 0"):
        join_mirrored(ones, np.zeros_like(ones))
    with pytest.raises(ValueError, match="length 0"):
        join_mirrored(ones, -ones)
    with pytest.raises(ValueError, match="mirrored"):
        join_mirrored(ones, ones[:1])
