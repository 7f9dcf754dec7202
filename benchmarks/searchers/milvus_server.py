"""The Milvus server from PyPI on the loopback address, used through its own client: FLAT, float32."""

from __future__ import annotations

import atexit
from pathlib import Path
from typing import Any

import numpy as np
from milvus import MilvusServer
from pymilvus import DataType, MilvusClient

_ROWS = 2000
"""Of one insertion: a message holds 64 MiB."""


def open_search(vectors: Any, scratch: Path) -> Any:
    unpacked, base = scratch.parent.parent / "milvus", scratch / "milvus"
    for folder in (unpacked, base):
        folder.mkdir(exist_ok=True)
    (base / "bin").symlink_to(unpacked)  # half a gigabyte that takes minutes to unpack
    server = MilvusServer()
    server.set_base_dir(str(base))
    server.start()
    atexit.register(server.stop)
    client = MilvusClient(f"http://127.0.0.1:{server.listen_port}")
    schema = client.create_schema(auto_id=False)
    schema.add_field("row", DataType.INT64, is_primary=True)
    schema.add_field("camera", DataType.INT64)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=vectors.shape[1])
    requests = client.prepare_index_params()
    requests.add_index("vector", index_type="FLAT", metric_type="IP")
    client.create_collection("items", schema=schema, index_params=requests)
    for start in range(0, len(vectors), _ROWS):
        part = np.asarray(vectors[start : start + _ROWS], np.float32)
        rows = [{"row": row, "camera": row % 100, "vector": vector} for row, vector in enumerate(part, start)]
        client.insert("items", rows)
    client.flush("items")
    client.load_collection("items")

    def find(queries: Any, k: int, cameras: int | None) -> Any:
        where = "" if cameras is None else f"camera < {cameras}"
        # Eventually: it need not wait for writes that might still be on their way.
        found = client.search(
            "items", list(queries), filter=where, limit=k, anns_field="vector", consistency_level="Eventually"
        )
        return [list(hits.ids) for hits in found]

    return find
