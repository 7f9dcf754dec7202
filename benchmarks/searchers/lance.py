"""LanceDB without an index, an exact scan; float32, filtered before the search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as arrow


def open_search(vectors: Any, scratch: Path) -> Any:
    dimension = vectors.shape[1]

    def batches() -> Any:
        for start in range(0, len(vectors), 65536):
            part = np.asarray(vectors[start : start + 65536], np.float32)
            rows = np.arange(start, start + len(part))
            column = arrow.FixedSizeListArray.from_arrays(arrow.array(part.ravel()), dimension)
            yield arrow.record_batch({"row": rows, "camera": rows % 100, "vector": column})

    kinds = {"row": arrow.int64(), "camera": arrow.int64(), "vector": arrow.list_(arrow.float32(), dimension)}
    table = lancedb.connect(scratch / "lance").create_table("items", batches(), schema=arrow.schema(kinds))

    def find(queries: Any, k: int, cameras: int | None) -> Any:
        request = table.search(queries if len(queries) > 1 else queries[0], vector_column_name="vector")
        request = request.distance_type("dot").limit(k).select(["row", "_distance"])
        if cameras is not None:
            request = request.where(f"camera < {cameras}", prefilter=True)
        found = request.to_arrow()
        rows = found["row"].to_numpy()
        if len(queries) > 1:  # hits of all queries in one table
            rows = rows[np.lexsort((found["_distance"].to_numpy(), found["query_index"].to_numpy()))]
        return rows.reshape(len(queries), -1)

    return find
