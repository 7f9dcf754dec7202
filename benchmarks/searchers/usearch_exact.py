"""Exact search of usearch, float16; it has no filter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from usearch.index import MetricKind, search


def open_search(vectors: Any, _scratch: Path) -> Any:
    stored = np.array(vectors)

    def find(queries: Any, k: int, cameras: int | None) -> Any:
        if cameras is not None:
            raise NotImplementedError("usearch has no filter in Python")
        found = search(stored, queries.astype(stored.dtype), k, MetricKind.IP, exact=True)
        return np.atleast_2d(found.keys)

    return find
