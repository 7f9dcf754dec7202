"""FAISS ``IndexScalarQuantizer`` with float16, with a bitmap as filter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import faiss

from benchmarks.searchers.faiss_flat import filtered


def open_search(vectors: Any, _scratch: Path) -> Any:
    kind = faiss.ScalarQuantizer.QT_fp16
    return filtered(faiss.IndexScalarQuantizer(vectors.shape[1], kind, faiss.METRIC_INNER_PRODUCT), vectors)
