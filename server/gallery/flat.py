"""Exact search on the CPU: flat scans by FAISS and matrix products, on every core."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from typing import NamedTuple

import numpy as np

from server.embedding.cores import usable_cores
from server.gallery.index import Mask, Rows, Scores
from server.gallery.passes import Passes
from server.gallery.scans import Loop, Product, Scan, scan_error
from server.gallery.types import StoredVectors, Vectors, VectorType

__all__ = ["FaissFlat"]

_SMALLEST, _LARGEST = 1024, 65536
"""Rows of a segment."""
_ALONE = 2**22
"""Bytes of vectors that one thread looks at sooner than it could share them: 0.4 ms of work."""
_PART = 2**21
"""Bytes of allowed vectors that a thread takes at a time, at least. It takes its share of what is left: first large
parts, which cost Python little, then small ones, so that no thread waits long for another."""
_GATHERED = 2**20
"""Bytes of vectors that are copied together at a time: they stay in a core's cache."""

_CORES = usable_cores()
_POOL = ThreadPoolExecutor(max(1, _CORES - 1), "search")
"""Helps every search, whose own thread works as well: more threads than cores would only take turns."""


class FaissFlat:
    """Flat inner-product search: FAISS and NumKong compute, NumPy holds the vectors.

    ``faiss.IndexFlatIP`` may not be searched while something is added, because it moves its vectors to grow. So they
    stay here, in segments that never move, and the loops of the same library run over each segment's rows. Adding
    fills memory that no search looks at and then raises ``size``: no lock, no second copy, whatever the gallery's size.

    A search is cut into parts, which its own thread and those of one pool for all searches take one after the other.
    Where few rows of a part are allowed, those are copied together first; parts without any are not read.
    """

    def __init__(self, dimension: int, vector_type: VectorType = VectorType.FLOAT32) -> None:
        self._dimension, self._vector_type, self._dtype = dimension, vector_type, vector_type.dtype
        self._segments: list[StoredVectors] = []
        self._starts: list[int] = []
        self._size = 0
        self._passes = Passes(self._pass)

    @property
    def dimension(self) -> int:
        return self._dimension

    @property
    def size(self) -> int:
        return self._size

    @property
    def error(self) -> float:
        return scan_error(self._dimension, self._vector_type)

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
        size = self._size if allowed is None else len(allowed)
        count = size if allowed is None else int(np.count_nonzero(allowed))
        if count == size:
            allowed = None
        queries = np.ascontiguousarray(queries, np.float32)
        if not (count and k and len(queries)):
            return np.full((len(queries), k), -np.inf, np.float32), np.full((len(queries), k), -1, np.int64)
        search = self._pass if count * self._row_bytes <= _ALONE else self._passes.search
        return search(queries, k, size, allowed)

    def _pass(self, queries: Vectors, k: int, size: int, allowed: Mask | None) -> tuple[Scores, Rows]:
        """What ``search`` gives, over the first ``size`` rows."""
        count = size if allowed is None else int(np.count_nonzero(allowed))
        kind: type[Scan] = Loop if len(queries) == 1 else Product
        begin = partial(kind, self._vector_type, queries, min(k, count), allowed)
        total = count * self._row_bytes
        threads = min(_CORES, 1 + total // _ALONE)
        parts = self._parts(size, 1 + size * _PART // total, threads)
        scans = _together(partial(_scan, begin, iter(parts), allowed), threads)
        scores, rows = (
            np.concatenate(found, axis=1) for found in zip(*((s.scores, s.rows) for s in scans), strict=True)
        )
        return _best(scores, rows, k)

    @property
    def _row_bytes(self) -> int:
        return self._dimension * self._dtype.itemsize

    def _parts(self, size: int, least: int, threads: int) -> list[_Part]:
        """The first ``size`` rows; a part has what lies together of a thread's share of those left, or of ``least``."""
        parts, left = [], size
        for start, segment in zip(self._starts, self._segments, strict=False):  # one may be appended meanwhile
            here = segment[: max(0, size - start)]
            while len(here):
                count = min(len(here), max(least, left // threads))
                parts.append(_Part(size - left, here[:count]))
                here, left = here[count:], left - count
        return parts

    def vectors(self, rows: Rows) -> Vectors:
        found = np.empty((len(rows), self._dimension), np.float32)
        segments = np.searchsorted(self._starts, rows, side="right") - 1
        for number in np.unique(segments):
            here = segments == number
            found[here] = self._segments[number][rows[here] - self._starts[number]]
        return found


class _Part(NamedTuple):
    first: int
    vectors: StoredVectors


def _together(work: Callable[[], Scan], threads: int) -> list[Scan]:
    """Have ``work`` done by this thread and as many of the pool as make it so many, unless they come too late."""
    tasks = [_POOL.submit(work) for _ in range(threads - 1)]
    try:
        own = work()
    finally:
        begun = [task for task in tasks if not task.cancel()]
        wait(begun)
    return [own, *(task.result() for task in begun)]


def _scan(begin: Callable[[], Scan], parts: Iterator[_Part], allowed: Mask | None) -> Scan:
    """Show a scan the allowed rows of those parts that other threads leave to this one."""
    with begin() as scan:
        for first, vectors in parts:  # of a list: two threads never get the same
            end = first + len(vectors)
            count = len(vectors) if allowed is None else np.count_nonzero(allowed[first:end])
            if allowed is None or count >= scan.few * len(vectors):
                scan.show(vectors, np.arange(first, end))
            elif count:
                _gather(scan, vectors, np.flatnonzero(allowed[first:end]), first)
    return scan


def _gather(scan: Scan, vectors: StoredVectors, places: Rows, first: int) -> None:
    step = max(1, _GATHERED // (vectors.shape[1] * vectors.itemsize))
    for start in range(0, len(places), step):
        here = places[start : start + step]
        scan.show(vectors.take(here, axis=0), here + first)


def _best(scores: Scores, rows: Rows, k: int) -> tuple[Scores, Rows]:
    """The ``k`` best of each query in falling order, padded where there are fewer."""
    each = np.arange(len(scores))[:, np.newaxis]
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    best, places = scores[each, order], rows[each, order]
    if (missing := k - order.shape[1]) > 0:
        best = np.pad(best, ((0, 0), (0, missing)), constant_values=-np.inf)
        places = np.pad(places, ((0, 0), (0, missing)), constant_values=-1)
    return best, places
