"""Construction of inverted lists, and measurement of how many rows a search must scan in them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError

import faiss
import numpy as np
from numpy.typing import NDArray

from server.domain.types import Vectors
from server.index.ivf import InvertedLists, ModalityLists, SearchDepth, unit_rows
from server.index.protocol import Mask, Rows, VectorIndex

__all__ = ["DEPTHS", "MIN_RECALL", "ShouldStop", "build_inverted_lists"]

DEPTHS = (10, 100)
"""Numbers of best rows for which recall is measured."""
MIN_RECALL = 0.99
"""Lists with a lower recall are not used."""
_TARGET_RECALL = 0.995
"""The breadth is chosen for this recall on half of the probes; the recall on the other half is reported."""
_MAX_SCANNED_SHARE = 0.1
"""Largest share of the rows that a search may scan; scattered vectors cost three times as much as adjacent ones."""
_PROBES = 400

_SAMPLES_PER_LIST, _ITERATIONS = 40, 8
"""Training vectors per list and iterations of k-means."""
_CHUNK = 2048

ShouldStop = Callable[[], bool]


def build_inverted_lists(
    index: VectorIndex, modalities: NDArray[np.uint8], alive: Mask, should_stop: ShouldStop
) -> InvertedLists | None:
    """Cluster the rows that are alive; return None if recall stays below ``MIN_RECALL`` or too little is saved.

    ``modalities`` ``[n]`` and ``alive`` ``[n]`` describe the first n rows of ``index``. The probes that measure recall
    are items of the gallery, each compared with all others. Their expected result is the exact one within each
    modality, as in a cross-modality search; a search through both modalities misses no more. The number of lists is
    the square root of the number of items.

    Raises:
        CancelledError: ``should_stop`` returned True.
    """
    generator = np.random.default_rng(0)
    living = np.flatnonzero(alive)
    parts = tuple(
        _cluster(index, int(modality), living[modalities[living] == modality], generator, should_stop)
        for modality in np.unique(modalities[living])
    )
    probes = generator.choice(living, min(_PROBES, len(living)), replace=False)
    scanned = [_rows_scanned_before(index, len(alive), part, probes, should_stop) for part in parts]
    depths: list[SearchDepth] = []
    for k in DEPTHS:
        depth = _depth(k, [rows[:, :k] for rows in scanned])
        if depth.recall < MIN_RECALL or depth.breadth * len(parts) > _MAX_SCANNED_SHARE * len(living):
            break
        depths.append(depth)
    return InvertedLists(len(alive), parts, tuple(depths)) if depths else None


def _depth(k: int, scanned: list[Rows]) -> SearchDepth:
    """Return the breadth that reaches the target recall, and its recall; see ``_rows_scanned_before``."""
    half = len(scanned[0]) // 2
    needed = [1 + int(np.quantile(_found(rows[:half]), _TARGET_RECALL, method="higher")) for rows in scanned]
    breadth = max(10 * k, *needed)  # enough for k hits, whatever lists they are in
    return SearchDepth(k, breadth, min(float((_found(rows[half:]) < breadth).mean()) for rows in scanned))


def _found(scanned: Rows) -> Rows:
    return scanned[scanned >= 0] if (scanned >= 0).any() else np.zeros(1, np.int64)


def _rows_scanned_before(
    index: VectorIndex, size: int, part: ModalityLists, probes: Rows, should_stop: ShouldStop
) -> Rows:
    """Count the rows that each probe scans before it reaches the list of each of its best rows: ``[probes, k]``.

    A search of a given breadth finds the rows whose count is smaller. Missing rows are -1.
    """
    queries = index.vectors(probes)
    best = _best(index, np.sort(part.members).astype(np.int64), queries, probes, DEPTHS[-1], should_stop)
    labels = np.zeros(size, np.int64)
    labels[part.members] = part.labels
    scanned = np.empty_like(best)
    for number, query in enumerate(queries):
        order = part.order(query)
        before = np.empty(len(order), np.int64)
        before[order] = np.cumsum(part.sizes[order]) - part.sizes[order]
        scanned[number] = np.where(best[number] < 0, -1, before[labels[best[number]]])
    return scanned


def _best(index: VectorIndex, rows: Rows, queries: Vectors, own_rows: Rows, k: int, should_stop: ShouldStop) -> Rows:
    """Return the ``k`` best of ``rows`` for each query ``[q, k]``, excluding the query's own row; padded with -1.

    Does not call ``index.search``, which would make concurrent searches wait.
    """
    best, scores = np.full((len(queries), k), -1, np.int64), np.full((len(queries), k), -np.inf, np.float32)
    for chunk, vectors in _chunks(index, rows, should_stop):
        chunk_scores = queries @ vectors.T
        chunk_scores[own_rows[:, np.newaxis] == chunk] = -np.inf
        scores = np.concatenate([scores, chunk_scores], axis=1)
        best = np.concatenate([best, np.broadcast_to(chunk, chunk_scores.shape)], axis=1)
        kept = np.argpartition(-scores, k - 1, axis=1)[:, :k]
        scores, best = np.take_along_axis(scores, kept, axis=1), np.take_along_axis(best, kept, axis=1)
    best[scores == -np.inf] = -1
    return np.take_along_axis(best, np.argsort(-scores, axis=1), axis=1)


def _cluster(
    index: VectorIndex, modality: int, rows: Rows, generator: np.random.Generator, should_stop: ShouldStop
) -> ModalityLists:
    """Train spherical k-means on a sample of ``rows`` and put each row into its nearest list."""
    count = math.isqrt(len(rows))
    sample = np.sort(generator.choice(rows, min(_SAMPLES_PER_LIST * count, len(rows)), replace=False))
    centroids = _trained_centroids(index, sample, count, should_stop)
    labels, sums = _assigned(index, rows, centroids, should_stop)
    starts = np.concatenate([[0], np.cumsum(np.bincount(labels, minlength=count))])
    return ModalityLists(modality, unit_rows(sums), rows[np.argsort(labels, kind="stable")].astype(np.int32), starts)


def _trained_centroids(index: VectorIndex, sample: Rows, count: int, should_stop: ShouldStop) -> Vectors:
    vectors = np.concatenate([vectors for _, vectors in _chunks(index, sample, should_stop)])
    centroids: Vectors | None = None
    for _ in range(_ITERATIONS):  # one call an iteration, so that the server can stop in between
        if should_stop():
            raise CancelledError
        kmeans = faiss.Kmeans(index.dimension, count, niter=1, spherical=True, seed=0, min_points_per_centroid=1)
        kmeans.train(vectors, init_centroids=centroids)
        centroids = kmeans.centroids
    if centroids is None:
        raise AssertionError("k-means ran no iteration")
    return centroids


def _assigned(index: VectorIndex, rows: Rows, centroids: Vectors, should_stop: ShouldStop) -> tuple[Rows, Vectors]:
    """Return the nearest centroid of each row, and the sum of the vectors assigned to each centroid."""
    labels: list[Rows] = []
    sums = np.zeros_like(centroids)
    for _, vectors in _chunks(index, rows, should_stop):
        nearest = (vectors @ centroids.T).argmax(axis=1)
        np.add.at(sums, nearest, vectors)
        labels.append(nearest)
    return np.concatenate(labels), sums


def _chunks(index: VectorIndex, rows: Rows, should_stop: ShouldStop) -> Iterator[tuple[Rows, Vectors]]:
    """Yield rows and their vectors in small chunks, so that neither BLAS nor a stopping server is held up for long."""
    for start in range(0, len(rows), _CHUNK):
        if should_stop():
            raise CancelledError
        part = rows[start : start + _CHUNK]
        yield part, index.vectors(part)
