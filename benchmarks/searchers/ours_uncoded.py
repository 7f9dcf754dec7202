"""The exact index of the server on a CPU, float16, without one-byte codes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.searchers.ours import filled
from server.domain.types import VectorType
from server.index.exact import ExactIndex


def open_search(vectors: Any, _scratch: Path) -> Any:
    return filled(ExactIndex(vectors.shape[1], VectorType.FLOAT16, codes=False), vectors)
