"""The exact index of the server on a CPU, float16, with one-byte codes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from server.domain.types import VectorType
from server.index.exact import ExactIndex


def open_search(vectors: Any, _scratch: Path) -> Any:
    return filled(ExactIndex(vectors.shape[1], VectorType.FLOAT16), vectors)


def filled(index: ExactIndex, vectors: Any) -> Any:
    """Add ``vectors`` to ``index`` and return its search function."""
    for start in range(0, len(vectors), 65536):
        index.add(np.array(vectors[start : start + 65536]))
    index.encode()
    camera = np.arange(len(vectors)) % 100
    allowed = {count: camera < count for count in (1, 10)} | {None: None}
    return lambda queries, k, cameras: index.search(queries, k, allowed[cameras])[1]
