"""The flip test: the average of the vectors of an image and of its mirror image."""

from __future__ import annotations

import numpy as np

from training.evaluation.embeddings import Vectors

__all__ = ["join_mirrored"]


def join_mirrored(vectors: Vectors, mirrored: Vectors) -> Vectors:
    """Normalise both vectors, average them and normalise the result.

    Args:
        vectors, mirrored: vectors of the images and of their mirror images, float32 ``[N, D]``.

    Returns unit vectors, float32 ``[N, D]``.

    Raises:
        ValueError: the shapes differ, or a vector or the sum of a pair is zero.

    >>> join_mirrored(np.array([[2, 0]], np.float32), np.array([[0, 5]], np.float32))
    array([[0.70710677, 0.70710677]], dtype=float32)
    """
    if vectors.shape != mirrored.shape:
        raise ValueError(f"expected mirrored vectors of the same shape, found {vectors.shape} and {mirrored.shape}")
    return _unit(_unit(vectors) + _unit(mirrored))


def _unit(vectors: Vectors) -> Vectors:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not (length > 0).all():
        raise ValueError(f"expected vectors of non-zero length, found {int((length == 0).sum())} of length 0")
    unit: Vectors = vectors / length
    return unit
