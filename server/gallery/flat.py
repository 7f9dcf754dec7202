"""Exact search on the CPU with FAISS."""

from __future__ import annotations

from collections.abc import Callable

import faiss
import numpy as np

from server.gallery.index import Mask, Rows, Scores
from server.gallery.products import MANY, best_products
from server.gallery.types import StoredVectors, Vectors, VectorType

__all__ = ["FaissFlat"]

_Scan = Callable[[StoredVectors, Vectors, faiss.IDSelector, Scores, Rows], None]

_SMALLEST, _LARGEST = 1024, 65536
"""Rows of a segment."""


class FaissFlat:
    """Flat inner-product search: FAISS computes, NumPy holds the vectors.

    ``faiss.IndexFlatIP`` may not be searched while something is added, because it moves its vectors to grow. So they
    stay here, in segments that never move, and the search of the same library runs over each segment's rows. Adding
    fills memory that no search looks at and then raises ``size``: no lock, no second copy, whatever the gallery's size.

    Every search carries a selector, also an unrestricted one: with it FAISS takes its SIMD loop, which for a single
    query is several times as fast as its unfiltered way, and never the matrix product, so that the process-wide BLAS
    threshold does not matter here. That of float16 widens each number to float32 as it goes, and sums in float32. Many
    queries at once take a matrix product of NumPy's.
    """

    def __init__(self, dimension: int, vector_type: VectorType = VectorType.FLOAT32) -> None:
        self._dimension, self._dtype = dimension, vector_type.dtype
        self._scan = _scan_float16 if vector_type is VectorType.FLOAT16 else _scan_float32
        self._segments: list[StoredVectors] = []
        self._starts: list[int] = []
        self._size = 0

    @property
    def dimension(self) -> int:
        return self._dimension

    @property
    def size(self) -> int:
        return self._size

    @property
    def error(self) -> float:
        # Bound of a float32 sum over nearly unit vectors, in any order.
        return 1.01 * (self._dimension + 2) * 2.0**-24

    def add(self, vectors: StoredVectors) -> None:
        vectors = np.ascontiguousarray(vectors, self._dtype)
        size = self._size
        while len(vectors):
            if self._segments and size < self._starts[-1] + len(self._segments[-1]):
                segment, place = self._segments[-1], size - self._starts[-1]
                taken = min(len(vectors), len(segment) - place)
                segment[place : place + taken] = vectors[:taken]
                vectors, size = vectors[taken:], size + taken
            elif len(vectors) < _LARGEST:
                self._begin(size, np.empty((min(max(size, _SMALLEST), _LARGEST), self._dimension), self._dtype))
            else:  # what fills a segment becomes one, without a copy
                self._begin(size, vectors[:_LARGEST])
                vectors, size = vectors[_LARGEST:], size + _LARGEST
        self._size = size

    def _begin(self, size: int, segment: StoredVectors) -> None:
        self._starts.append(size)
        self._segments.append(segment)

    def search(self, queries: Vectors, k: int, allowed: Mask | None = None) -> tuple[Scores, Rows]:
        if allowed is None:
            allowed = np.ones(self._size, np.bool_)
        queries = np.ascontiguousarray(queries, np.float32)
        found = [(np.full((len(queries), k), -np.inf, np.float32), np.full((len(queries), k), -1, np.int64))]
        for start, segment in zip(self._starts, self._segments, strict=False):  # one may be appended meanwhile
            part = allowed[start : start + len(segment)]
            if part.any():
                here, count = segment[: len(part)], min(k, len(part))
                if len(queries) < MANY:
                    scores, rows = _search(self._scan, here, queries, count, part)
                else:
                    scores, rows = best_products(here, queries, count, part)
                found.append((scores, np.where(rows < 0, -1, rows + start)))
        scores = np.concatenate([part for part, _ in found], axis=1)
        rows = np.concatenate([part for _, part in found], axis=1)
        scores[rows < 0] = -np.inf  # FAISS pads with the lowest finite number
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(scores, order, axis=1), np.take_along_axis(rows, order, axis=1)

    def vectors(self, rows: Rows) -> Vectors:
        found = np.empty((len(rows), self._dimension), np.float32)
        segments = np.searchsorted(self._starts, rows, side="right") - 1
        for number in np.unique(segments):
            here = segments == number
            found[here] = self._segments[number][rows[here] - self._starts[number]]
        return found


def _search(scan: _Scan, vectors: StoredVectors, queries: Vectors, k: int, allowed: Mask) -> tuple[Scores, Rows]:
    bits = np.packbits(allowed, bitorder="little")
    selector = faiss.IDSelectorBitmap(len(bits), faiss.swig_ptr(bits))
    scores = np.full((len(queries), k), -np.inf, np.float32)
    rows = np.full((len(queries), k), -1, np.int64)
    scan(vectors, queries, selector, scores, rows)
    return scores, rows


def _scan_float32(
    vectors: StoredVectors, queries: Vectors, selector: faiss.IDSelector, scores: Scores, rows: Rows
) -> None:
    faiss.knn_inner_product(
        faiss.swig_ptr(queries),
        faiss.swig_ptr(vectors),
        vectors.shape[1],
        len(queries),
        len(vectors),
        scores.shape[1],
        faiss.swig_ptr(scores),
        faiss.swig_ptr(rows),
        selector,
    )


def _scan_float16(
    vectors: StoredVectors, queries: Vectors, selector: faiss.IDSelector, scores: Scores, rows: Rows
) -> None:
    """The loop of ``IndexScalarQuantizer`` over memory of ours; it leaves the hits of each query in no order."""
    quantizer = faiss.ScalarQuantizer(vectors.shape[1], faiss.ScalarQuantizer.QT_fp16)
    scanner = quantizer.select_InvertedListScanner(  # type: ignore[attr-defined]  # the stubs lack it
        faiss.METRIC_INNER_PRODUCT, None, True, selector
    )
    scanner.set_list(0, 0.0)
    codes = faiss.swig_ptr(vectors.view(np.uint8))
    for query, best, places in zip(queries, scores, rows, strict=True):
        scanner.set_query(faiss.swig_ptr(query))
        scanner.scan_codes(len(vectors), codes, None, faiss.swig_ptr(best), faiss.swig_ptr(places), scores.shape[1])
