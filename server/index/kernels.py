"""Two ways to find the best rows among blocks of vectors: FAISS's scan loop, and a matrix product."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Protocol, Self

import faiss
import numkong
import numpy as np

from server.domain.types import StoredVectors, Vectors, VectorType
from server.index.protocol import Mask, Rows, Scores

__all__ = ["FaissScan", "MatrixScan", "Scan", "scan_error"]

_BLOCK = 4096
"""Vectors of one product."""
_SELECTION_SCORES = 2**16
"""Scores of one selection: they stay in a core's cache, and FAISS starts no threads for them."""
_BLAS_QUERIES = 16
"""Number of queries from which BLAS multiplies float32 faster than NumKong, which sums in float64."""


class Scan(Protocol):
    """Keeps the ``k`` best allowed rows of each query among the scanned blocks. A context manager, for one thread.

    ``scores`` and ``rows`` are ``[q, k]``, unordered; missing entries are row -1, score -inf.
    """

    gather_below: float
    """Below this share of allowed rows, copying them together first is faster than scanning all."""
    scores: Scores
    rows: Rows

    def __init__(self, vector_type: VectorType, queries: Vectors, k: int, allowed: Mask | None) -> None:
        """``queries`` float32 ``[q, D]``, k ≥ 1; ``allowed`` tells for every row whether it may be kept, None: all."""

    def __enter__(self) -> Self:
        """Return the scan."""

    def __exit__(self, *_: object) -> None:
        """Free memory that Python does not manage."""

    def scan(self, vectors: StoredVectors, rows: Rows) -> None:
        """Scan ``vectors`` ``[n, D]`` of ``rows`` ``[n]``."""


def scan_error(dimension: int, vector_type: VectorType) -> float:
    """Return the largest difference between a score and the exact inner product of nearly unit vectors."""
    sums = (dimension + 2) * 2.0**-24  # of float32, in any order
    query = (
        2.0**-11 + dimension**0.5 * 2.0**-25 if vector_type is VectorType.FLOAT16 else 0.0
    )  # ``MatrixScan`` rounds it
    return 1.01 * (sums + query)


class FaissScan:
    """FAISS's loop over inverted lists, run over our own memory: for one query it is as fast as memory.

    FAISS's flat indexes search only their own memory. float16 values are widened as they are read.
    """

    gather_below = 1 / 25

    def __init__(self, vector_type: VectorType, queries: Vectors, k: int, allowed: Mask | None) -> None:
        self.scores, self.rows = _no_hits(1, k)
        bits = None if allowed is None else np.packbits(allowed, bitorder="little")
        selector = None if bits is None else faiss.IDSelectorBitmap(len(bits), faiss.swig_ptr(bits))
        index = _without_vectors(vector_type, queries.shape[1])
        self._pointed_at = queries, bits, selector, index
        self._scanner = index.get_InvertedListScanner(False, selector, None)
        self._scanner.set_query(faiss.swig_ptr(queries))
        self._scanner.set_list(0, 0.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # The wrapper of FAISS never frees a scanner by itself.
        faiss.InvertedListScanner.__swig_destroy__(self._scanner)  # type: ignore[attr-defined]  # the stubs lack it

    def scan(self, vectors: StoredVectors, rows: Rows) -> None:
        codes, best, places = (faiss.swig_ptr(part) for part in (vectors.view(np.uint8), self.scores, self.rows))
        self._scanner.scan_codes(len(rows), codes, faiss.swig_ptr(rows), best, places, self.rows.shape[1])


class MatrixScan:
    """A matrix product, which reads the vectors once for all queries; float16 vectors round the queries to float16."""

    gather_below = 1 / 2

    def __init__(self, vector_type: VectorType, queries: Vectors, k: int, allowed: Mask | None) -> None:
        self.scores, self.rows = _no_hits(len(queries), k)
        self._multiply, self._allowed = _multiplication(vector_type, queries), allowed
        self._best = faiss.float_minheap_array_t()
        self._best.nh, self._best.k = self.scores.shape
        self._best.val, self._best.ids = faiss.swig_ptr(self.scores), faiss.swig_ptr(self.rows)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def scan(self, vectors: StoredVectors, rows: Rows) -> None:
        for start in range(0, len(rows), _BLOCK):
            scores, here = self._multiply(vectors[start : start + _BLOCK]), rows[start : start + _BLOCK]
            if self._allowed is not None and not (kept := self._allowed[here]).all():
                scores, here = scores[kept], here[kept]
            self._select(scores, here)

    def _select(self, scores: Scores, rows: Rows) -> None:
        step = max(1, _SELECTION_SCORES // len(self.scores))
        for start in range(0, len(rows), step):
            part = np.ascontiguousarray(scores[start : start + step].T, np.float32)
            self._best.addn_with_ids(part.shape[1], faiss.swig_ptr(part), faiss.swig_ptr(rows[start:]), 0)


def _no_hits(queries: int, k: int) -> tuple[Scores, Rows]:
    return np.full((queries, k), -np.inf, np.float32), np.full((queries, k), -1, np.int64)


@cache
def _without_vectors(vector_type: VectorType, dimension: int) -> faiss.IndexIVF:
    lists = faiss.IndexFlatIP(dimension), dimension, 1
    if vector_type is VectorType.FLOAT32:
        return faiss.IndexIVFFlat(*lists, faiss.METRIC_INNER_PRODUCT)
    return faiss.IndexIVFScalarQuantizer(*lists, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT, False)


def _multiplication(vector_type: VectorType, queries: Vectors) -> Callable[[StoredVectors], Scores]:
    """Return the function from vectors ``[n, D]`` to their scores ``[n, q]``."""
    if vector_type is VectorType.FLOAT32 and len(queries) >= _BLAS_QUERIES:
        columns = np.ascontiguousarray(queries.T)
        return lambda vectors: vectors @ columns
    packed = numkong.dots_pack(queries.astype(vector_type.dtype))
    return lambda vectors: np.asarray(numkong.dots_packed(vectors, packed))
