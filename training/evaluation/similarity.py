"""Inner products that do not depend on blocking, threads or library.

The last bits of a float32 product depend on block size, thread count and library, and so does the order of near ties.
Here components are first rounded to multiples of 2^-25 (of the power of two next to the largest norm), which changes a
similarity by about 1e-8. Products of two such numbers and their partial sums are then multiples of 2^-50 below 2^2,
which float64 represents exactly: they are the same on every machine, in every block and order.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from training.evaluation.embeddings import Vectors

__all__ = ["Scores", "Similarity"]

Scores = NDArray[np.float32]

_GRID_BITS = 25
_BLOCK_BYTES = 32 << 20


class Similarity:
    """Inner products of query and gallery vectors, a slice of the queries at a time.

    Args:
        query: float32 ``[Q, D]``, finite.
        gallery: float32 ``[G, D]``, finite.

    Raises:
        ValueError: the dimensions differ.

    >>> similarity = Similarity(np.eye(2, dtype=np.float32), np.array([[0.6, 0.8]], dtype=np.float32))
    >>> similarity(slice(0, 2))
    array([[0.6],
           [0.8]], dtype=float32)
    """

    def __init__(self, query: Vectors, gallery: Vectors) -> None:
        if query.ndim != 2 or gallery.ndim != 2 or query.shape[1] != gallery.shape[1]:
            raise ValueError(f"expected query and gallery of one dimension, found {query.shape} and {gallery.shape}")
        self._query, self._gallery = query, gallery
        self._query_exponent, self._gallery_exponent = _exponent(query), _exponent(gallery)

    def __call__(self, rows: slice) -> Scores:
        """Return the similarities of the queries with the whole gallery: float32 ``[len(rows), G]``."""
        query = _on_grid(self._query[rows], self._query_exponent)
        query *= 2.0 ** (self._query_exponent + self._gallery_exponent)
        scores = np.empty((len(query), len(self._gallery)), dtype=np.float32)
        step = max(1, _BLOCK_BYTES // (8 * max(1, query.shape[1])))
        for start in range(0, len(self._gallery), step):
            block = slice(start, start + step)
            scores[:, block] = query @ _on_grid(self._gallery[block], self._gallery_exponent).T
        return scores


def _exponent(vectors: Vectors) -> int:
    """Return the exponent of the power of two next to the largest norm: 0 for unit vectors."""
    largest = np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64).max(initial=0.0)
    return round(math.log2(largest) / 2) if largest > 0 else 0


def _on_grid(vectors: Vectors, exponent: int) -> NDArray[np.float64]:
    """Divide vectors by ``2 ** exponent`` and round components to multiples of ``2 ** -25``."""
    grid = np.rint(vectors * np.float64(2.0 ** (_GRID_BITS - exponent)))
    grid *= 2.0**-_GRID_BITS
    return grid
