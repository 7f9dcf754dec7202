"""One-byte codes of vectors with a proven bound on their error: an exact search reads half the bytes of float16.

A product of codes is a score that differs from the exact one by at most a bound. A row whose score is below the k-th
best that was found so far by more than the bound is not among the k best rows. The others are candidates, of which the
vectors themselves are scanned.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numkong
import numpy as np
from numpy.typing import NDArray

from server.domain.types import StoredVectors, Vectors, VectorType
from server.index.kernels import FaissScan, Scan, scan_error
from server.index.protocol import Mask, Rows, Scores

__all__ = ["CodedScan", "Int8Codes", "SegmentCodes", "encode"]

_LARGEST = 127
_LEAST_SCALE = 2.0**-100
_BLOCK = 4096
"""Rows whose candidates are selected at a time."""
_ROUNDING = 2.0**-18
"""Bound on the float32 rounding in scores, scales and error norms; a float32 sum of 10,000 squares errs by less."""
_MAX_CANDIDATES = 1 / 4
"""Share of candidates from which the vectors themselves are scanned: their scattered reads cost more than the codes."""


@dataclass(frozen=True, slots=True)
class Int8Codes:
    """Codes int8 ``[n, D]`` and scales float32 ``[n]``: a vector is ``scale * (code + error)``."""

    codes: NDArray[np.int8]
    scales: NDArray[np.float32]
    error: float
    """Upper bound of the Euclidean norms of the errors, in units of the scale: at most half a unit a dimension."""
    length: float
    """Upper bound of the norms of the vectors."""

    def __getitem__(self, rows: slice) -> Int8Codes:
        return Int8Codes(self.codes[rows], self.scales[rows], self.error, self.length)


def encode(vectors: StoredVectors) -> Int8Codes:
    """Return the codes of ``vectors`` ``[n, D]``, each with the scale that its largest component needs."""
    codes = np.empty(vectors.shape, np.int8)
    scales = np.empty((len(vectors), 1), np.float32)
    error = length = 0.0
    for start in range(0, len(vectors), _BLOCK):
        part = slice(start, start + _BLOCK)
        wide = vectors[part].astype(np.float32)
        scales[part] = np.abs(wide).max(axis=1, keepdims=True) / _LARGEST
        np.maximum(scales[part], _LEAST_SCALE, out=scales[part])
        units = wide / scales[part]
        codes[part] = np.rint(units)
        error = max(error, float(np.linalg.norm(units - codes[part], axis=1).max(initial=0.0)))
        length = max(length, float(np.linalg.norm(wide, axis=1).max(initial=0.0)))
    return Int8Codes(codes, scales[:, 0], error * (1 + _ROUNDING) + _ROUNDING, length * (1 + _ROUNDING))


class CodedScan:
    """Scans codes, and with ``scan`` the vectors of candidates: ``scan`` keeps the rows that it would keep of all."""

    def __init__(self, scan: Scan, queries: Vectors, allowed: Mask | None, error: float) -> None:
        """``queries`` float32 ``[q, D]``; ``allowed`` tells for every row whether it may be kept, None: all.

        ``error`` is the largest difference between a score of ``scan`` and the exact inner product.
        """
        self._exact, self._allowed, self._error = scan, allowed, error
        self._query = encode(queries)
        self._multiply = _multiplication(self._query.codes)

    def scan(self, codes: Int8Codes, vectors: StoredVectors, first: int) -> None:
        """Scan the ``codes`` of ``vectors``, whose first row is ``first``."""
        for start in range(0, len(vectors), _BLOCK):
            part = slice(start, start + _BLOCK)
            chosen = self._candidates(codes[part])
            if self._allowed is not None:
                chosen = chosen[self._allowed[first + start + chosen]]
            block = vectors[part]
            if len(chosen) > _MAX_CANDIDATES * len(block):
                self._exact.scan(block, np.arange(first + start, first + start + len(block)))
            elif len(chosen):
                self._exact.scan(block.take(chosen, axis=0), first + start + chosen)

    def _candidates(self, codes: Int8Codes) -> Rows:
        """Return the places whose score may exceed the k-th best that was found for a query.

        With q = q' + f and v = v' + e, where q' and v' are what the codes stand for, <q, v> = <q', v'> + <q', e> +
        <f, v>. The last two are at most ‖q'‖ ‖e‖ and ‖f‖ ‖v‖, by the Cauchy-Schwarz inequality. All in units of the
        scale of q'.
        """
        query = self._query
        least = self._exact.scores[:, 0] - self._error - _ROUNDING * query.length * codes.length
        least = (least / query.scales - query.error * codes.length).astype(np.float32)
        longest = (query.length / query.scales + query.error) * codes.error
        scores = np.add(self._multiply(codes.codes), longest, dtype=np.float32)
        scores *= codes.scales[:, np.newaxis]
        reached = scores >= least
        return np.flatnonzero(reached if len(least) == 1 else reached.any(axis=1))


def _multiplication(queries: NDArray[np.int8]) -> Callable[[NDArray[np.int8]], NDArray[np.int32] | Scores]:
    """Return the function from codes ``[n, D]`` to their products ``[n, q]`` with ``queries``, exact."""
    if len(queries) == 1:
        return lambda codes: np.asarray(numkong.cdist(codes, queries, "dot", out_dtype="float32"))
    packed = numkong.dots_pack(queries)
    return lambda codes: np.asarray(numkong.dots_packed(codes, packed))


class SegmentCodes:
    """Codes of segments that no longer change, encoded one at a time in the background. Thread-safe.

    They are requested by searches: a gallery without searches costs nothing, and at its end a process waits for at
    most one segment.
    """

    def __init__(self, vector_type: VectorType) -> None:
        self._vector_type = vector_type
        self._codes: dict[int, Int8Codes] = {}
        self._task: Future[None] | None = None

    def get(self, number: int) -> Int8Codes | None:
        """Return the codes of a segment; None if it has none yet."""
        return self._codes.get(number)

    def request(self, number: int, segment: StoredVectors) -> None:
        """Begin to encode a segment unless another one is being encoded."""
        if (self._task is None or self._task.done()) and _PAYS.get(self._vector_type, True):
            self._task = _ENCODER.submit(self.encode, number, segment)

    def encode(self, number: int, segment: StoredVectors) -> None:
        """Encode a segment, and keep the codes if searches by codes are faster on this processor."""
        codes = encode(segment)
        if self._vector_type not in _PAYS:
            _PAYS[self._vector_type] = _pays(codes, segment, self._vector_type)
        if _PAYS[self._vector_type]:
            self._codes[number] = codes


_ENCODER = ThreadPoolExecutor(1, "vector-codes")
_PAYS: dict[VectorType, bool] = {}
"""Whether codes are faster than vectors on this processor, measured with the first segment of each type."""


def _pays(codes: Int8Codes, vectors: StoredVectors, vector_type: VectorType) -> bool:
    """Return whether a search of ``vectors`` takes less processor time by their ``codes``: the best of three each."""
    query = vectors[:1].astype(np.float32)
    error = scan_error(vectors.shape[1], vector_type)
    times: dict[bool, list[float]] = {False: [], True: []}
    for coded in [False, True] * 3:
        with FaissScan(vector_type, query, 10, None) as scan:
            start = time.thread_time()
            if coded:
                CodedScan(scan, query, None, error).scan(codes, vectors, 0)
            else:
                scan.scan(vectors, np.arange(len(vectors)))
            times[coded].append(time.thread_time() - start)
    return min(times[True]) < min(times[False])
