"""Relevance feedback: a query is moved towards items marked right and away from those marked wrong.

Rocchio's rule, with the weights of Manning, Raghavan and Schütze (Introduction to Information Retrieval, 2008, 9.1.1).
"""

from __future__ import annotations

import numpy as np

from server.domain.types import Vectors

__all__ = ["RIGHT_WEIGHT", "WRONG_WEIGHT", "reweight"]

RIGHT_WEIGHT, WRONG_WEIGHT = 0.75, 0.15
"""Weights of the mean of the vectors marked right, and wrong, beside the query's 1."""

_SMALLEST_NORM = 1e-6


def reweight(queries: Vectors, right: Vectors, wrong: Vectors) -> Vectors:
    """Return unit vectors float32 ``[q, D]``: each query plus the mean of ``right``, less the mean of ``wrong``.

    ``queries`` ``[q, D]``, ``right`` ``[r, D]`` and ``wrong`` ``[w, D]`` are of unit length; r and w may be 0.

    Raises:
        ValueError: a query and the marked vectors cancel out.
    """
    moved = queries.astype(np.float64)
    for marked, weight in ((right, RIGHT_WEIGHT), (wrong, -WRONG_WEIGHT)):
        if len(marked):
            moved += weight * marked.mean(0, dtype=np.float64)
    norms = np.linalg.norm(moved, axis=1, keepdims=True)
    if norms.min() < _SMALLEST_NORM:
        raise ValueError("the query and the marked vectors cancel out")
    unit: Vectors = (moved / norms).astype(np.float32)
    return unit
