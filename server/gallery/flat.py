"""Exact search on the CPU with FAISS."""

from __future__ import annotations

import faiss
import numpy as np

from server.gallery.index import Mask, Rows, Scores
from server.gallery.types import Vectors

__all__ = ["FaissFlat"]

_SMALLEST, _LARGEST = 1024, 65536
"""Rows of a segment."""


class FaissFlat:
    """Flat inner-product search: FAISS computes, NumPy holds the vectors.

    ``faiss.IndexFlatIP`` may not be searched while something is added, because it moves its vectors to grow. So they
    stay here, in segments that never move, and the search of the same library runs over each segment's rows. Adding
    fills memory that no search looks at and then raises ``size``: no lock, no second copy, whatever the gallery's size.

    Every search carries a selector, also an unrestricted one: with it FAISS takes its SIMD loop, which for a single
    query is several times as fast as its unfiltered way, and never the matrix product, so that the process-wide BLAS
    threshold does not matter here.
    """

    def __init__(self, dimension: int) -> None:
        self._dimension = dimension
        self._segments: list[Vectors] = []
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
        return (self._dimension + 2) * 2.0**-24  # bound of a float32 sum over unit vectors, in any order

    def add(self, vectors: Vectors) -> None:
        size = self._size
        while len(vectors):
            if not self._segments or size == self._starts[-1] + len(self._segments[-1]):
                self._grow(size)
            segment, place = self._segments[-1], size - self._starts[-1]
            taken = min(len(vectors), len(segment) - place)
            segment[place : place + taken] = vectors[:taken]
            vectors, size = vectors[taken:], size + taken
        self._size = size

    def _grow(self, size: int) -> None:
        capacity = min(max(size, _SMALLEST), _LARGEST)
        segment = np.empty((capacity, self._dimension), np.float32)
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
                scores, rows = _search(segment[: len(part)], queries, min(k, len(part)), part)
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


def _search(vectors: Vectors, queries: Vectors, k: int, allowed: Mask) -> tuple[Scores, Rows]:
    bits = np.packbits(allowed, bitorder="little")
    selector = faiss.IDSelectorBitmap(len(bits), faiss.swig_ptr(bits))
    scores = np.empty((len(queries), k), np.float32)
    rows = np.empty((len(queries), k), np.int64)
    faiss.knn_inner_product(
        faiss.swig_ptr(queries),
        faiss.swig_ptr(vectors),
        vectors.shape[1],
        len(queries),
        len(vectors),
        k,
        faiss.swig_ptr(scores),
        faiss.swig_ptr(rows),
        selector,
    )
    return scores, rows
