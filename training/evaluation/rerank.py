"""k-reciprocal re-ranking (Zhong et al., CVPR 2017) with bounded memory.

``server.index.rerank`` is a separate dense implementation for the few candidates of one search, because the server may
import neither SciPy nor training.

Re-ranking is transductive: other queries and gallery images affect a score, so re-ranked metrics are reported in
separate rows. The neighbour sets are sparse, and only the nearest ``candidates`` gallery images of a query get a new
distance, the published one; the others follow in their original order.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy.sparse import csr_array

from training.evaluation.embeddings import Vectors, have_unit_length
from training.evaluation.ranking import Ranks, nearest
from training.evaluation.similarity import Scores, Similarity

__all__ = ["KReciprocal", "Reranked"]

_ELEMENTS = 1 << 22  # of an intermediate array


class KReciprocal(BaseModel):
    """Parameters; the defaults are those of the paper and of IDKL."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Literal["k_reciprocal"] = "k_reciprocal"
    k1: int = Field(default=20, ge=1)
    """Number of neighbours that are tested for reciprocity."""
    k2: int = Field(default=6, ge=1)
    """Number of neighbours, including the image itself, whose encodings are averaged."""
    weight: float = Field(default=0.3, ge=0, le=1)
    """Weight of the original distance (lambda)."""
    candidates: int = Field(default=1000, ge=1)
    """Number of the nearest gallery images of a query that are re-ranked."""

    @property
    def id(self) -> str:
        """Name in protocol ids, for instance ``k_reciprocal_20_6_0.3_top1000``."""
        return f"{self.method}_{self.k1}_{self.k2}_{self.weight!r}_top{self.candidates}"


class Reranked:
    """Re-ranked scores for a slice of the queries: a scorer for :func:`metrics.evaluate`.

    The score of a candidate is its negative distance, in [-1, 0]; that of the others is ``-1 -`` their original rank.

    Args:
        query: unit vectors, float32 ``[Q, D]``.
        gallery: unit vectors, float32 ``[G, D]``.
        settings: the parameters.

    Raises:
        ValueError: a vector is not of unit length, or the dimensions differ.
    """

    def __init__(self, query: Vectors, gallery: Vectors, settings: KReciprocal) -> None:
        self._similarity = Similarity(query, gallery)
        self._settings = settings
        self._queries = len(query)
        everyone = np.concatenate((query, gallery))
        if not have_unit_length(everyone):
            raise ValueError("k-reciprocal re-ranking needs unit vectors")
        neighbours, self._farthest = _neighbours(everyone, max(settings.k1 + 1, settings.k2))
        encoding = _encode(everyone, neighbours[:, : settings.k1 + 1], self._farthest, settings.k1)
        self._encoding = _average(encoding, neighbours[:, : settings.k2])

    def __call__(self, rows: slice) -> Scores:
        """Return the scores of the queries against the whole gallery, float32 ``[len(rows), G]``; larger is nearer."""
        scores = self._similarity(rows)
        queries = np.arange(self._queries)[rows]
        step = max(1, _ELEMENTS // self._encoding.shape[0])
        for start in range(0, len(queries), step):
            part = slice(start, start + step)
            scores[part] = self._rescore(queries[part], scores[part])
        return scores

    def _rescore(self, queries: Ranks, scores: Scores) -> Scores:
        order = nearest(scores, scores.shape[1])
        result = np.empty_like(scores)
        np.put_along_axis(result, order, -2 - np.arange(scores.shape[1], dtype=np.float32)[None, :], axis=1)
        near = order[:, : self._settings.candidates]
        original = _distance(np.take_along_axis(scores, near, axis=1), self._farthest[queries, None])
        weight = self._settings.weight
        distance = (1 - weight) * self._jaccard(queries, near) + weight * original
        np.put_along_axis(result, near, -distance.astype(np.float32), axis=1)
        return result

    def _jaccard(self, queries: Ranks, near: Ranks) -> NDArray[np.float64]:
        """Return the distances between the encodings of each query and its candidates, ``[q, candidates]``."""
        shared = np.empty(near.shape)
        for row, encoding in enumerate(self._encoding[queries].toarray()):
            candidates = self._encoding[self._queries + near[row]]
            candidates.data = np.minimum(candidates.data, encoding[candidates.indices])
            shared[row] = candidates.sum(axis=1)
        return 1 - shared / (2 - shared)


def _distance(similarity: NDArray[np.floating], farthest: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return squared Euclidean distances of unit vectors, divided by the largest one."""
    distance = np.maximum(2 - 2 * similarity.astype(np.float64), 0)
    return distance / np.maximum(farthest, np.finfo(np.float64).tiny)


def _blocks(rows: int, elements_per_row: int) -> Iterator[slice]:
    step = max(1, _ELEMENTS // max(1, elements_per_row))
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))


def _neighbours(vectors: Vectors, count: int) -> tuple[Ranks, NDArray[np.float64]]:
    """Return the nearest ``count`` of each vector, including itself, and the largest squared distance of each."""
    similarity = Similarity(vectors, vectors)
    near, farthest = [], []
    for rows in _blocks(len(vectors), len(vectors)):
        scores = similarity(rows)
        near.append(nearest(scores, min(count, len(vectors))))
        farthest.append(2 - 2 * scores.min(axis=1).astype(np.float64))
    return np.concatenate(near), np.concatenate(farthest)


def _reciprocal(neighbours: Ranks) -> csr_array:
    """Return an int matrix ``[M, M]`` with 1 for vectors that are neighbours ``[M, k]`` of each other."""
    rows, count = neighbours.shape
    mutual = np.concatenate(
        [
            (neighbours[neighbours[block]] == np.arange(rows)[block, None, None]).any(axis=2)
            for block in _blocks(rows, count * count)
        ]
    )
    starts = np.concatenate(([0], np.cumsum(mutual.sum(axis=1))))
    return csr_array((np.ones(starts[-1], dtype=np.int32), neighbours[mutual], starts), shape=(rows, rows))


def _encode(vectors: Vectors, neighbours: Ranks, farthest: NDArray[np.float64], k1: int) -> csr_array:
    """Encode each vector as weights over its expanded k-reciprocal neighbours, ``[M, M]``, with row sums of 1."""
    near = _reciprocal(neighbours)
    nearer = _reciprocal(neighbours[:, : round(k1 / 2) + 1])
    size = nearer.sum(axis=1)
    parts = []
    for block in _blocks(len(vectors), 8 * neighbours.shape[1] ** 2):
        own = near[block]
        shared = own.multiply(own @ nearer.T).tocsr()  # number of members of each neighbour's set in this set
        shared.data = (3 * shared.data > 2 * size[shared.indices]).astype(np.int32)
        expanded = (own + shared @ nearer).tocsr()
        parts.append(_weigh(expanded, vectors, block, farthest[block]))
    starts = np.concatenate([[0], *(np.diff(part.indptr) for part in parts)]).cumsum()
    weights = np.concatenate([part.data for part in parts]), np.concatenate([part.indices for part in parts])
    return csr_array((*weights, starts), shape=(len(vectors), len(vectors)))


def _weigh(members: csr_array, vectors: Vectors, block: slice, farthest: NDArray[np.float64]) -> csr_array:
    """Weight the members of each row's set; weights decrease with the distance."""
    members.eliminate_zeros()
    row = np.repeat(np.arange(members.shape[0]), np.diff(members.indptr))
    similarity = np.concatenate(
        [
            np.einsum("nd,nd->n", vectors[block][row[pairs]], vectors[members.indices[pairs]], dtype=np.float64)
            for pairs in _blocks(len(row), vectors.shape[1])
        ]
    )
    weight = np.exp(-_distance(similarity, farthest[row]))
    total = np.bincount(row, weights=weight, minlength=members.shape[0])
    return csr_array((weight / total[row], members.indices, members.indptr), shape=members.shape)


def _average(encoding: csr_array, neighbours: Ranks) -> csr_array:
    """Average the encodings of the neighbours ``[M, k]`` of each vector."""
    rows, count = neighbours.shape
    chosen = csr_array(
        (np.full(rows * count, 1 / count), neighbours.ravel(), np.arange(0, rows * count + 1, count)),
        shape=(rows, rows),
    )
    return chosen @ encoding
