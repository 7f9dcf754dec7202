"""Makes inverted lists for a gallery and measures how much of them a search must look at."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError

import numpy as np

from server.gallery.columns import View
from server.gallery.index import Rows, VectorIndex
from server.gallery.lists import Depth, InvertedLists, Part, unit_rows
from server.gallery.types import Vectors

__all__ = ["DEPTHS", "RECALL", "make_lists"]

DEPTHS = (10, 100)
"""For how many of the best rows recall is measured."""
RECALL = 0.99
"""Least recall with which lists are used."""
_AIM = 0.995
"""Recall that the breadth is chosen for, on half of the probes; that on the other half is what counts."""
_MOST = 0.1
"""Largest share of the rows that may be looked at: their vectors lie scattered, which costs about three times more."""
_PROBES = 400

_SAMPLE, _ROUNDS = 40, 8
"""Vectors for each list that it is trained with, and how often."""
_CHUNK = 2048

Stopped = Callable[[], bool]


def make_lists(view: View, stopped: Stopped) -> InvertedLists | None:
    """Lists of what is alive; None where they do not reach ``RECALL`` or would save too little.

    Probes are items of the gallery, each without itself. What they should find is the exact result in the items of
    each modality, as a search by camera light in the dark does; one through both finds no less. There are
    as many lists as the square root of the number of items.

    Raises:
        CancelledError: ``stopped`` says so.
    """
    generator = np.random.default_rng(0)
    modalities = view.modality[view.alive]
    living = np.flatnonzero(view.alive)
    parts = tuple(
        _cluster(view.index, int(modality), living[modalities == modality], generator, stopped)
        for modality in np.unique(modalities)
    )
    probes = generator.choice(living, min(_PROBES, len(living)), replace=False)
    before = [_rows_before(view, part, probes, stopped) for part in parts]
    depths: list[Depth] = []
    for k in DEPTHS:
        depth = _depth(k, [found[:, :k] for found in before])
        if depth.recall < RECALL or depth.breadth * len(parts) > _MOST * len(living):
            break
        depths.append(depth)
    return InvertedLists(len(view.alive), parts, tuple(depths)) if depths else None


def _depth(k: int, before: list[Rows]) -> Depth:
    """The breadth that gives recall enough, and the recall that it gives; see ``_rows_before``."""
    half = len(before[0]) // 2
    needed = [1 + int(np.quantile(_known(found[:half]), _AIM, method="higher")) for found in before]
    breadth = max(10 * k, *needed)  # enough for k hits, whatever lists they are in
    return Depth(k, breadth, min(float((_known(found[half:]) < breadth).mean()) for found in before))


def _known(before: Rows) -> Rows:
    return before[before >= 0] if (before >= 0).any() else np.zeros(1, np.int64)


def _rows_before(view: View, part: Part, probes: Rows, stopped: Stopped) -> Rows:
    """How many rows a probe looks at before it comes to the list of each of its best ones: ``[probes, k]``.

    So many of them a breadth finds as are smaller than it. -1 stands where there is no such row.
    """
    queries = view.index.vectors(probes)
    best = _best(view.index, np.sort(part.members).astype(np.int64), queries, probes, DEPTHS[-1], stopped)
    labels = np.zeros(len(view.alive), np.int64)
    labels[part.members] = part.labels
    before = np.empty_like(best)
    for number, query in enumerate(queries):
        order = part.order(query)
        passed = np.empty(len(order), np.int64)
        passed[order] = np.cumsum(part.sizes[order]) - part.sizes[order]
        before[number] = np.where(best[number] < 0, -1, passed[labels[best[number]]])
    return before


def _best(index: VectorIndex, rows: Rows, queries: Vectors, themselves: Rows, k: int, stopped: Stopped) -> Rows:
    """The ``k`` best of ``rows`` for each query ``[q, k]``, but for the row that it is itself; -1 behind the last.

    Not by ``index.search``: whoever searches would wait for it.
    """
    best, scores = np.full((len(queries), k), -1, np.int64), np.full((len(queries), k), -np.inf, np.float32)
    for some, vectors in _chunks(index, rows, stopped):
        here = queries @ vectors.T
        here[themselves[:, np.newaxis] == some] = -np.inf
        scores = np.concatenate([scores, here], axis=1)
        best = np.concatenate([best, np.broadcast_to(some, here.shape)], axis=1)
        kept = np.argpartition(-scores, k - 1, axis=1)[:, :k]
        scores, best = np.take_along_axis(scores, kept, axis=1), np.take_along_axis(best, kept, axis=1)
    best[scores == -np.inf] = -1
    return np.take_along_axis(best, np.argsort(-scores, axis=1), axis=1)


def _cluster(index: VectorIndex, modality: int, rows: Rows, generator: np.random.Generator, stopped: Stopped) -> Part:
    """k-means on the sphere, with a sample; then all ``rows`` in the nearest list."""
    count = math.isqrt(len(rows))
    sample = np.sort(generator.choice(rows, min(_SAMPLE * count, len(rows)), replace=False))
    centroids = index.vectors(generator.choice(sample, count, replace=False))
    for _ in range(_ROUNDS):
        _, sums = _assigned(index, sample, centroids, stopped)
        centroids = unit_rows(np.where(sums.any(axis=1, keepdims=True), sums, centroids))
    labels, sums = _assigned(index, rows, centroids, stopped)
    starts = np.concatenate([[0], np.cumsum(np.bincount(labels, minlength=count))])
    return Part(modality, unit_rows(sums), rows[np.argsort(labels, kind="stable")].astype(np.int32), starts)


def _assigned(index: VectorIndex, rows: Rows, centroids: Vectors, stopped: Stopped) -> tuple[Rows, Vectors]:
    """The nearest centroid of each row, and the sum of the vectors that each centroid has got."""
    labels: list[Rows] = []
    sums = np.zeros_like(centroids)
    for _, vectors in _chunks(index, rows, stopped):
        nearest = (vectors @ centroids.T).argmax(axis=1)
        order = np.argsort(nearest, kind="stable")
        numbers, starts = np.unique(nearest[order], return_index=True)
        sums[numbers] += np.add.reduceat(vectors[order], starts)
        labels.append(nearest)
    return np.concatenate(labels), sums


def _chunks(index: VectorIndex, rows: Rows, stopped: Stopped) -> Iterator[tuple[Rows, Vectors]]:
    """Rows and their vectors, few at a time: nobody waits long for BLAS, or for the server to stop."""
    for start in range(0, len(rows), _CHUNK):
        if stopped():
            raise CancelledError
        part = rows[start : start + _CHUNK]
        yield part, index.vectors(part)
