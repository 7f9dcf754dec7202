"""Exact search on the CPU: flat scans by FAISS and matrix products, on every core."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from typing import NamedTuple

import numpy as np

from models.cores import usable_cores
from server.domain.types import StoredVectors, Vectors, VectorType
from server.index.coalescing import QueryCoalescer
from server.index.codes import CodedScan, Int8Codes, SegmentCodes
from server.index.kernels import FaissScan, MatrixScan, Scan, scan_error
from server.index.protocol import Mask, Rows, Scores

__all__ = ["ExactIndex"]

_MIN_CODED_ROWS = 2**14
"""Rows from which a segment has codes: few vectors stay in a core's cache, where their bytes cost little."""
_CODED_SHARE = 0.3
"""Share of allowed rows from which all codes are read faster than the allowed vectors."""
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

    With ``codes``, a full segment is encoded once searches read it, at one more byte a dimension. Then a search reads
    the codes and only the vectors that may be among the best.

    A search is divided into blocks of rows, which its own thread and a shared pool process. If few rows of a block are
    allowed, they are copied together first; blocks without allowed rows are not read.
    """

    def __init__(self, dimension: int, vector_type: VectorType = VectorType.FLOAT32, *, codes: bool = True) -> None:
        self._dimension, self._vector_type, self._dtype = dimension, vector_type, vector_type.dtype
        self._segments: list[StoredVectors] = []
        self._starts: list[int] = []
        self._codes = SegmentCodes(vector_type) if codes else None
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
                rows = min(max(size, len(vectors), _MIN_SEGMENT_ROWS), _MAX_SEGMENT_ROWS)
                self._add_segment(size, np.empty((rows, self._dimension), self._dtype))
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
        begin = partial(kind, self._vector_type, queries, min(k, count))
        total = count * self._row_bytes
        threads = min(_CORES, 1 + total // _SINGLE_THREAD_BYTES)
        blocks = self._blocks(size, 1 + size * _MIN_BLOCK_BYTES // total, threads)
        if allowed is not None and count < kind.gather_below * size:
            work = partial(_gather_all, partial(begin, None), iter(blocks), allowed)
        elif count > _CODED_SHARE * size and any(block.codes is not None for block in blocks):
            work = partial(self._scan_codes, partial(begin, allowed), iter(blocks), allowed, queries)
        else:
            work = partial(_scan, partial(begin, allowed), iter(blocks), allowed)
        scans = _in_parallel(work, threads)
        if len(scans) == 1:
            return _best(scans[0].scores, scans[0].rows, k)
        scores, rows = np.hstack([scan.scores for scan in scans]), np.hstack([scan.rows for scan in scans])
        return _best(scores, rows, k)

    @property
    def _row_bytes(self) -> int:
        return self._dimension * self._dtype.itemsize

    def _blocks(self, size: int, least: int, threads: int) -> list[_RowBlock]:
        """Divide the first ``size`` rows into contiguous blocks of a thread's share of the rest, at least ``least``."""
        blocks, left = [], size
        for number, (start, segment) in enumerate(zip(self._starts, self._segments, strict=False)):
            end = min(size, start + len(segment))  # a segment may be appended meanwhile
            codes = self._codes_of(number) if end == start + len(segment) else None
            while (first := size - left) < end:
                count = min(end - first, max(least, left // threads))
                part = slice(first - start, first - start + count)
                blocks.append(_RowBlock(first, segment[part], None if codes is None else codes[part]))
                left -= count
        return blocks

    def encode(self) -> None:
        """Encode all full segments now; otherwise each search begins to encode one more."""
        if self._codes is None:
            return
        for number, (start, segment) in enumerate(zip(self._starts, self._segments, strict=True)):
            if start + len(segment) <= self._size and len(segment) >= _MIN_CODED_ROWS:
                self._codes.encode(number, segment)

    def _codes_of(self, number: int) -> Int8Codes | None:
        """Return the codes of a full segment; None, and begin to encode it, if there are none yet."""
        segment = self._segments[number]
        if self._codes is None or len(segment) < _MIN_CODED_ROWS:
            return None
        codes = self._codes.get(number)
        if codes is None:
            self._codes.request(number, segment)
        return codes

    def _scan_codes(
        self, begin: Callable[[], Scan], blocks: Iterator[_RowBlock], allowed: Mask | None, queries: Vectors
    ) -> Scan:
        """Scan the codes of the blocks that have them, and the vectors of their candidates and of other blocks."""
        with begin() as scan:
            coded = CodedScan(scan, queries, allowed, self.error)
            for block in blocks:
                if block.codes is None:
                    _scan_block(scan, block, allowed)
                else:
                    coded.scan(block.codes, block.vectors, block.first)
        return scan

    def vectors(self, rows: Rows) -> Vectors:
        return self._take(rows).astype(np.float32, copy=False)

    def _take(self, rows: Rows) -> StoredVectors:
        found = np.empty((len(rows), self._dimension), self._dtype)
        segments = np.searchsorted(self._starts, rows, side="right") - 1
        ends = np.flatnonzero(np.diff(segments, append=-1)) + 1  # of the runs of rows in one segment
        for start, end in zip([0, *ends], ends, strict=False):
            number = segments[start]
            found[start:end] = self._segments[number].take(rows[start:end] - self._starts[number], axis=0)
        return found


class _RowBlock(NamedTuple):
    first: int
    vectors: StoredVectors
    codes: Int8Codes | None

    @property
    def rows(self) -> slice:
        return slice(self.first, self.first + len(self.vectors))


def _in_parallel(work: Callable[[], Scan], threads: int) -> list[Scan]:
    """Run ``work`` in this thread and in ``threads - 1`` of the pool, except for those that start too late."""
    if threads == 1:
        return [work()]
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
        for block in blocks:  # a list iterator never gives a block to two threads
            _scan_block(scan, block, allowed)
    return scan


def _scan_block(scan: Scan, block: _RowBlock, allowed: Mask | None) -> None:
    if allowed is None or np.count_nonzero(allowed[block.rows]) >= scan.gather_below * len(block.vectors):
        scan.scan(block.vectors, np.arange(block.first, block.rows.stop))
    else:
        _gather(scan, block, allowed)


def _gather_all(begin: Callable[[], Scan], blocks: Iterator[_RowBlock], allowed: Mask) -> Scan:
    """Scan copies of the few allowed rows of each block, for which the scan itself needs no mask."""
    with begin() as scan:
        for block in blocks:
            _gather(scan, block, allowed)
    return scan


def _gather(scan: Scan, block: _RowBlock, allowed: Mask) -> None:
    places = np.flatnonzero(allowed[block.rows])
    step = max(1, _GATHER_BYTES // (block.vectors.shape[1] * block.vectors.itemsize))
    for start in range(0, len(places), step):
        chunk = places[start : start + step]
        scan.scan(block.vectors.take(chunk, axis=0), chunk + block.first)


def _best(scores: Scores, rows: Rows, k: int) -> tuple[Scores, Rows]:
    """Return the ``k`` best rows of each query by falling score, padded if there are fewer."""
    each = np.arange(len(scores))[:, np.newaxis]
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    best, places = scores[each, order], rows[each, order]
    if (missing := k - order.shape[1]) > 0:
        best = np.pad(best, ((0, 0), (0, missing)), constant_values=-np.inf)
        places = np.pad(places, ((0, 0), (0, missing)), constant_values=-1)
    return best, places
