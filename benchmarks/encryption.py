"""Cost of encryption at rest in the store: processor time to put and to load items, with and without keys.

python -m benchmarks.encryption
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from models.card import Modality
from server.domain.types import Gallery, Item, NewItem, VectorType
from server.storage.encryption import Encryption
from server.storage.sql_store import SqlStore

ITEMS, DIMENSION, BATCH, THUMBNAIL_BYTES, ROUNDS = 100_000, 512, 1000, 2500, 3
GALLERY = Gallery("g", "m", "f" * 64, DIMENSION, datetime.now(UTC), 0, vector_type=VectorType.FLOAT32)


def draw_items() -> list[NewItem]:
    """Return items with random unit vectors and one random thumbnail."""
    vectors = np.random.default_rng(0).standard_normal((ITEMS, DIMENSION), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    thumbnail = os.urandom(THUMBNAIL_BYTES)
    return [NewItem(Item(f"i{n}", Modality.VISIBLE), vectors[n], thumbnail) for n in range(ITEMS)]


def measure(encryption: Encryption, items: Sequence[NewItem]) -> tuple[float, float]:
    """Return the processor seconds to put all items and to load them."""
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(SqlStore(f"sqlite:///{Path(folder)}/v.db", encryption)) as store,
    ):
        store.create_gallery(GALLERY)
        start = time.process_time()
        for first in range(0, ITEMS, BATCH):
            store.put("g", items[first : first + BATCH])
        stored = time.process_time()
        with store.load("g") as loaded:
            for _ in loaded.chunks:
                pass
        return stored - start, time.process_time() - stored


def main() -> None:
    """Measure both in turn, so that other load on the machine meets both."""
    items = draw_items()
    print(
        f"{ITEMS:,} items of dimension {DIMENSION}, thumbnails of {THUMBNAIL_BYTES:,} bytes; seconds of the processor"
    )
    for _ in range(ROUNDS):
        for name, keys in (("not encrypted", {}), ("encrypted", {"k": bytes(32)})):
            put, load = measure(Encryption(keys), items)
            print(f"{name:>14}: put {put:5.2f}  load {load:5.2f}")


if __name__ == "__main__":
    main()
