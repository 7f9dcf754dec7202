"""Exact search on the CPU: flat scans by FAISS and matrix products, on every core."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from typing import NamedTuple

import numpy as np

from server.domain.types import StoredVectors, Vectors, VectorType
from server.hardware.cpu import usable_cores
from server.index.coalescing import QueryCoalescer
from server.index.kernels import FaissScan, MatrixScan, Scan, scan_error
from server.index.protocol import Mask, Rows, Scores

__all__ = ["ExactIndex"]

_MIN_SEGMENT_ROWS, _MAX_SEGMENT_ROWS = 1024, 65536
_SINGLE_THREAD_BYTES = 2**22
"""Bytes of vectors that one thread scans faster than several threads could share them: 0.4 ms of work."""
_MIN_BLOCK_BYTES = 2**21
"""Least bytes of allowed vectors in a block. A thread takes its share of the remaining rows: first large blocks, which
cost Python little, then small ones, so that no thread waits long for another."""
_GATHER_BYTES = 2**20
"""Bytes of scattered vectors that are copied together at a time: they stay in a core's cache."""

_CORES = usable_cores()
_POOL = ThreadPoolExecutor(max(1, _CORES - 1), "search")
"""Helps the threads of searches; more threads than cores would only take turns."""


class ExactIndex:
    """Exact inner-product search: FAISS and NumKong compute, NumPy holds the vectors.

    ``faiss.IndexFlatIP`` must not be searched during an addition, because it moves its vectors to grow. So the vectors
    are held here, in segments that never move, and FAISS scans each segment. ``add`` fills memory that no search reads
    and then increases ``size``: no lock and no second copy, whatever the gallery's size.

    A search is divided into blocks of rows, which its own thread and a shared pool process. If few rows of a block are
    allowed, they are copied together first; blocks without allowed rows are not read.
    """

    def __init__(self, dimension: int, vector_type: VectorType = VectorType.FLOAT32) -> None:
        self._dimension, self._vector_type, self._dtype = dimension, vector_type, vector_type.dtype
        self._segments: list[StoredVectors] = []
        self._starts: list[int] = []
        self._size = 0
        self._coalescer = QueryCoalescer(self._pass)

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
            elif len(vectors) < _MAX_SEGMENT_ROWS:
                self._add_segment(
                    size, np.empty((min(max(size, _MIN_SEGMENT_ROWS), _MAX_SEGMENT_ROWS), self._dimension), self._dtype)
                )
            else:  # a full segment is adopted without a copy
                self._add_segment(size, vectors[:_MAX_SEGMENT_ROWS])
                vectors, size = vectors[_MAX_SEGMENT_ROWS:], size + _MAX_SEGMENT_ROWS
        self._size = size

    def _add_segment(self, size: int, segment: StoredVectors) -> None:
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
        search = self._pass if count * self._row_bytes <= _SINGLE_THREAD_BYTES else self._coalescer.search
        return search(queries, k, size, allowed)

    def _pass(self, queries: Vectors, k: int, size: int, allowed: Mask | None) -> tuple[Scores, Rows]:
        """Search the first ``size`` rows."""
        count = size if allowed is None else int(np.count_nonzero(allowed))
        kind: type[Scan] = FaissScan if len(queries) == 1 else MatrixScan
        begin = partial(kind, self._vector_type, queries, min(k, count), allowed)
        total = count * self._row_bytes
        threads = min(_CORES, 1 + total // _SINGLE_THREAD_BYTES)
        blocks = self._blocks(size, 1 + size * _MIN_BLOCK_BYTES // total, threads)
        scans = _in_parallel(partial(_scan, begin, iter(blocks), allowed), threads)
        scores, rows = (
            np.concatenate(found, axis=1) for found in zip(*((s.scores, s.rows) for s in scans), strict=True)
        )
        return _best(scores, rows, k)

    @property
    def _row_bytes(self) -> int:
        return self._dimension * self._dtype.itemsize

    def _blocks(self, size: int, least: int, threads: int) -> list[_RowBlock]:
        """Divide the first ``size`` rows into contiguous blocks of a thread's share of the rest, at least ``least``."""
        blocks, left = [], size
        for start, segment in zip(self._starts, self._segments, strict=False):  # a segment may be appended meanwhile
            rest = segment[: max(0, size - start)]
            while len(rest):
                count = min(len(rest), max(least, left // threads))
                blocks.append(_RowBlock(size - left, rest[:count]))
                rest, left = rest[count:], left - count
        return blocks

    def vectors(self, rows: Rows) -> Vectors:
        found = np.empty((len(rows), self._dimension), np.float32)
        segments = np.searchsorted(self._starts, rows, side="right") - 1
        for number in np.unique(segments):
            chosen = segments == number
            found[chosen] = self._segments[number][rows[chosen] - self._starts[number]]
        return found


class _RowBlock(NamedTuple):
    first: int
    vectors: StoredVectors


def _in_parallel(work: Callable[[], Scan], threads: int) -> list[Scan]:
    """Run ``work`` in this thread and in ``threads - 1`` of the pool, except for those that start too late."""
    tasks = [_POOL.submit(work) for _ in range(threads - 1)]
    try:
        own = work()
    finally:
        begun = [task for task in tasks if not task.cancel()]
        wait(begun)
    return [own, *(task.result() for task in begun)]


def _scan(begin: Callable[[], Scan], blocks: Iterator[_RowBlock], allowed: Mask | None) -> Scan:
    """Scan the allowed rows of the blocks that this thread takes."""
    with begin() as scan:
        for first, vectors in blocks:  # a list iterator never gives a block to two threads
            end = first + len(vectors)
            count = len(vectors) if allowed is None else np.count_nonzero(allowed[first:end])
            if allowed is None or count >= scan.gather_below * len(vectors):
                scan.scan(vectors, np.arange(first, end))
            elif count:
                _gather(scan, vectors, np.flatnonzero(allowed[first:end]), first)
    return scan


def _gather(scan: Scan, vectors: StoredVectors, places: Rows, first: int) -> None:
    step = max(1, _GATHER_BYTES // (vectors.shape[1] * vectors.itemsize))
    for start in range(0, len(places), step):
        chunk = places[start : start + step]
        scan.scan(vectors.take(chunk, axis=0), chunk + first)


def _best(scores: Scores, rows: Rows, k: int) -> tuple[Scores, Rows]:
    """Return the ``k`` best rows of each query by falling score, padded if there are fewer."""
    each = np.arange(len(scores))[:, np.newaxis]
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    best, places = scores[each, order], rows[each, order]
    if (missing := k - order.shape[1]) > 0:
        best = np.pad(best, ((0, 0), (0, missing)), constant_values=-np.inf)
        places = np.pad(places, ((0, 0), (0, missing)), constant_values=-1)
    return best, places
