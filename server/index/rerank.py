"""k-reciprocal re-ranking (Zhong et al., CVPR 2017) of a few candidates: pure NumPy over their vectors.

Candidates that are mutual neighbours of the query, and share neighbours with it, come nearer. Neighbourhoods are
computed among the query and its candidates only, so distances of different searches are not comparable.

``training.evaluation.rerank`` is a second implementation on purpose: it re-ranks whole galleries with bounded memory,
in sparse matrices of SciPy. The server may import neither SciPy nor training, and a few candidates fit dense matrices.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from server.domain.types import Rerank, Vectors

__all__ = ["reranked_distances"]

Distances = NDArray[np.float64]

_GRID = 2.0**25


def reranked_distances(queries: Vectors, candidates: Vectors, how: Rerank) -> NDArray[np.float32]:
    """Return the new distance of each candidate to its nearest query, float32 ``[n]`` in [0, 1].

    Args:
        queries: unit vectors of one person, ``[q, D]``.
        candidates: unit vectors ``[n, D]``, best first; among equally near neighbours the earlier one is nearer.
        how: the parameters.
    """
    if not len(candidates):
        return np.empty(0, np.float32)
    distances = _distances(np.concatenate([queries, candidates.astype(np.float32)]))
    neighbours = _neighbours(distances)
    encodings = _averaged(_encodings(distances, neighbours, how.k1), neighbours[:, : how.k2])
    split = len(queries)
    shared = np.stack([np.minimum(query, encodings[split:]).sum(axis=1) for query in encodings[:split]])
    jaccard = 1 - shared / (2 - shared)
    mixed = (1 - how.lambda_) * jaccard + how.lambda_ * distances[:split, split:]
    nearest: NDArray[np.float32] = np.clip(mixed.min(axis=0), 0, 1).astype(np.float32)
    return nearest


def _distances(vectors: Vectors) -> Distances:
    """Return squared Euclidean distances ``[m, m]``, each row divided by its largest."""
    # On this grid a product of two components, and every sum of them, is exact in float64: equal vectors get equal
    # distances, whatever order BLAS sums in.
    rounded = np.round(vectors.astype(np.float64) * _GRID) / _GRID
    distances = np.maximum(2 - 2 * rounded @ rounded.T, 0)
    shares: Distances = distances / np.maximum(distances.max(axis=1, keepdims=True), np.finfo(np.float64).tiny)
    return shares


def _neighbours(distances: Distances) -> NDArray[np.int64]:
    """Return the neighbours of each vector, nearest first ``[m, m]``; itself always comes first."""
    own_first = distances.copy()
    np.fill_diagonal(own_first, -1)
    order: NDArray[np.int64] = np.argsort(own_first, axis=1, kind="stable")
    return order


def _reciprocal(neighbours: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return 1 where two vectors are among each other's ``neighbours`` ``[m, k]``, else 0: ``[m, m]``."""
    among = np.zeros((len(neighbours),) * 2, np.float32)
    np.put_along_axis(among, neighbours, 1, axis=1)
    return among * among.T


def _encodings(distances: Distances, neighbours: NDArray[np.int64], k1: int) -> Distances:
    """Encode each vector as weights over its expanded k-reciprocal neighbours: ``[m, m]``, rows summing to 1."""
    near = _reciprocal(neighbours[:, : k1 + 1])
    nearer = _reciprocal(neighbours[:, : round(k1 / 2) + 1])
    shared = near @ nearer  # number of nearer neighbours that are also near; `nearer` is symmetric
    joining = near * (3 * shared > 2 * nearer.sum(axis=1))
    members = near + joining @ nearer > 0
    weights = np.where(members, np.exp(-distances), 0)
    encodings: Distances = weights / weights.sum(axis=1, keepdims=True)
    return encodings


def _averaged(encodings: Distances, neighbours: NDArray[np.int64]) -> Distances:
    """Return the mean encoding of the ``neighbours`` ``[m, k]`` of each vector."""
    total = np.zeros_like(encodings)
    for place in neighbours.T:
        total += encodings[place]
    mean: Distances = total / neighbours.shape[1]
    return mean
