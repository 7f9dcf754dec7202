"""Approximate search of usearch (HNSW), float16, tuned for a recall of 0.99 at 10; it has no filter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from usearch.index import Index, MetricKind, search

RECALL = 0.99
_PROBES = 64


def open_search(vectors: Any, _scratch: Path) -> Any:
    stored = np.array(vectors)
    index = Index(ndim=vectors.shape[1], metric=MetricKind.IP, dtype="f16", connectivity=32, expansion_add=128)
    index.add(np.arange(len(stored)), stored)
    probes = stored[np.random.default_rng(0).choice(len(stored), _PROBES, replace=False)]
    exact = search(stored, probes, 10, MetricKind.IP, exact=True).keys
    for width in (32, 64, 128, 256, 512, 1024, 2048):
        index.expansion_search = width
        found = index.search(probes, 10).keys
        if np.mean([len(np.intersect1d(*pair)) / 10 for pair in zip(found, exact, strict=True)]) >= RECALL:
            break

    def find(queries: Any, k: int, cameras: int | None) -> Any:
        if cameras is not None:
            raise NotImplementedError("usearch has no filter in Python")
        return np.atleast_2d(index.search(queries.astype(stored.dtype), k).keys)

    return find
