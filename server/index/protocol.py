"""The ``VectorIndex`` protocol, its brute-force reference, and the self-test that an implementation must pass."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from server.domain.errors import StartupError
from server.domain.types import StoredVectors, Vectors, VectorType

__all__ = [
    "BruteForceIndex",
    "BuildIndex",
    "FilterIgnored",
    "Mask",
    "Rows",
    "Scores",
    "VectorIndex",
    "check_filter",
    "inner_products",
]

Mask = NDArray[np.bool_]
Scores = NDArray[np.float32]
Rows = NDArray[np.int64]

_CHUNK = 4096
_PROBES = 8


class VectorIndex(Protocol):
    """Unit vectors in rows 0…size-1, appended and never changed. Score = inner product, larger is nearer.

    A float16 index rounds each vector when it is added; its scores and ``vectors`` are of the rounded one.

    Threads: one at a time may call ``add``; any number may call the other methods concurrently. A call sees all
    vectors added before it began; it may or may not see later ones, unless a mask excludes them.
    """

    @property
    def dimension(self) -> int:
        """Length of a vector."""

    @property
    def size(self) -> int:
        """Number of rows."""

    @property
    def error(self) -> float:
        """Largest difference between a score of ``search`` and the exact inner product."""

    def add(self, vectors: StoredVectors) -> None:
        """Append ``[n, dimension]`` as rows size…size+n-1. The array may be kept, so it must not change afterwards."""

    def search(self, queries: Vectors, k: int, allowed: Mask | None = None) -> tuple[Scores, Rows]:
        """Find the ``k`` nearest rows of each query, float32 ``[q, dimension]``.

        ``allowed`` is bool ``[m]``, m ≤ size: a row that is False there, or beyond its end, is never returned. Returns
        scores ``[q, k]`` float32 in falling order and rows ``[q, k]`` int64; missing entries are row -1, score -inf.
        """

    def vectors(self, rows: Rows) -> Vectors:
        """Return the vectors of ``rows`` [n], float32 ``[n, dimension]``, bit for bit as added or rounded."""


BuildIndex = Callable[[int, VectorType], VectorIndex]
"""Creates an empty index for vectors of a dimension and type."""


class FilterIgnored(StartupError):
    """An index returned rows that the mask excludes, or not the best of the allowed rows."""

    def __init__(self, index: str, finding: str) -> None:
        super().__init__(f"the index {index} does not filter correctly: {finding}. It is not used.")
        self.index, self.finding = index, finding


def inner_products(queries: Vectors, vectors: StoredVectors) -> Scores:
    """Return the exact scores ``[q, n]``: summed in float64, rounded once to float32.

    The score of two vectors does not depend on their positions in the arrays.
    """
    scores = np.empty((len(queries), len(vectors)), np.float32)
    wide = queries.astype(np.float64)
    for start in range(0, len(vectors), _CHUNK):
        # einsum and not BLAS: BLAS sums differently at the edges of its tiles, so equal vectors would get two scores.
        part = vectors[start : start + _CHUNK].astype(np.float64)
        scores[:, start : start + _CHUNK] = np.einsum("qd,nd->qn", wide, part)
    return scores


class BruteForceIndex:
    """The reference implementation: every inner product, then a stable sort. Slow, short and exact."""

    error = 2.0**-24

    def __init__(self, dimension: int, vector_type: VectorType = VectorType.FLOAT32) -> None:
        self._vectors: StoredVectors = np.empty((0, dimension), vector_type.dtype)

    @property
    def dimension(self) -> int:
        return int(self._vectors.shape[1])

    @property
    def size(self) -> int:
        return len(self._vectors)

    def add(self, vectors: StoredVectors) -> None:
        # A new array: running searches keep the old one.
        self._vectors = np.concatenate([self._vectors, vectors.astype(self._vectors.dtype)])

    def search(self, queries: Vectors, k: int, allowed: Mask | None = None) -> tuple[Scores, Rows]:
        vectors = self._vectors
        candidates = np.arange(len(vectors)) if allowed is None else np.flatnonzero(allowed)
        found = inner_products(queries, vectors[candidates])
        order = np.argsort(-found, axis=1, kind="stable")[:, :k]
        scores = np.full((len(queries), k), -np.inf, np.float32)
        rows = np.full((len(queries), k), -1, np.int64)
        scores[:, : order.shape[1]] = np.take_along_axis(found, order, axis=1)
        rows[:, : order.shape[1]] = candidates[order]
        return scores, rows

    def vectors(self, rows: Rows) -> Vectors:
        return self._vectors[rows].astype(np.float32)


def check_filter(build: BuildIndex) -> None:
    """Try an index of each type: forbid the best hits, forbid all, allow fewer than k, ask for more than there are.

    Each for several queries and for one, which an index may search in another way. Some builds of FAISS take a filter
    on the GPU and ignore it without an error.

    Raises:
        FilterIgnored: an answer differs from brute force.
    """
    for vector_type in VectorType:
        _check_filter(build(32, vector_type), BruteForceIndex(32, vector_type))


def _check_filter(index: VectorIndex, oracle: VectorIndex) -> None:
    generator = np.random.default_rng(0)
    vectors = generator.standard_normal((256, 32)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    index.add(vectors)
    oracle.add(vectors)
    probes = vectors[:_PROBES]

    best = np.ones(256, np.bool_)
    best[np.unique(oracle.search(probes, 10)[1])] = False
    few = np.zeros(256, np.bool_)
    few[[0, 100, 255]] = True
    cases: dict[str, tuple[Mask | None, int]] = {
        "without the best hits": (best, 10),
        "with all forbidden": (np.zeros(256, np.bool_), 10),
        "with three allowed": (few, 10),
        "with k above what is allowed": (np.arange(256) % 3 == 0, 150),
        "with the first hundred": (np.ones(100, np.bool_), 10),
        "with k above the count": (None, 300),
    }
    for (name, (allowed, k)), queries in product(cases.items(), [probes, probes[:1]]):
        scores, rows = index.search(queries, k, allowed)
        expected, places = oracle.search(queries, k, allowed)
        if not np.array_equal(rows < 0, places < 0):
            raise FilterIgnored(type(index).__name__, f"wrong number of hits {name}")
        usable = np.ones(256, np.bool_) if allowed is None else np.pad(allowed, (0, 256 - len(allowed)))
        if not usable[rows[rows >= 0]].all():
            raise FilterIgnored(type(index).__name__, f"forbidden hits {name}")
        if not np.allclose(scores, expected, rtol=0, atol=index.error + oracle.error):
            raise FilterIgnored(type(index).__name__, f"other scores than brute force {name}")
