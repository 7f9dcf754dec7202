"""Cost of a large gallery: time until the server is ready, memory, a search, and an erasure.

    python -m benchmarks.galleries start [--items 1000000] [--dimension 512] [--type float16] [--directory DIR]

Fills a store with the classes of the server, closes it (which writes the snapshot), and starts `vireid serve` on it:
once with the snapshot and, after killing the server, once without. A DIR that is already filled is reused unchanged.
Prints JSON. Times are measured from the start of the process; its modules and the data are in the page cache.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import numpy as np

from benchmarks.harness.effort import BenchmarkResult, Effort, Row
from benchmarks.harness.machine import available_bytes
from benchmarks.harness.models import CACHE
from benchmarks.harness.server import Server, serving
from models.card import Modality
from server.domain.types import Item, NewItem, VectorType
from server.gallery.galleries import Galleries
from server.gallery.snapshots import SnapshotDirectory
from server.index.exact import ExactIndex
from server.storage.sql_store import SqlStore

__all__ = ["CAMERAS", "GALLERY", "filled_data_dir", "measure", "temporary_copy"]

GALLERY, FINGERPRINT = "large", "f" * 64
BATCH, CROPS, CAMERAS = 2000, 20, 100
PERSON = 1000
"""Items of the person who is erased."""
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def filled_data_dir(count: int, dimension: int, vector_type: VectorType, directory: Path | None = None) -> Path:
    """Return a data directory with a gallery, by default in the cache; create it if it does not exist."""
    directory = directory or CACHE / "galleries" / f"{count}x{dimension}-{vector_type}"
    if not (directory / "vireid.db").exists():
        directory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory.parent) as scratch:  # complete or absent
            _fill(Path(scratch) / "data", count, dimension, vector_type)
            (Path(scratch) / "data").rename(directory)
    return directory


def _fill(directory: Path, count: int, dimension: int, vector_type: VectorType) -> None:
    """Store ``CROPS`` items per person, and ``PERSON`` items of one person, with random unit vectors."""
    galleries = Galleries(
        SqlStore(f"sqlite:///{directory}/vireid.db"), ExactIndex, SnapshotDirectory(directory / "index", least=1)
    )
    galleries.catalog.create(
        GALLERY, model="none", fingerprint=FINGERPRINT, dimension=dimension, vector_type=vector_type
    )
    for start in range(0, count, BATCH):
        numbers = range(start, min(start + BATCH, count))
        vectors = np.random.default_rng(start).standard_normal((len(numbers), dimension), np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        items = [NewItem(_item(number), vector) for number, vector in zip(numbers, vectors, strict=True)]
        galleries.writer.put(GALLERY, items, fingerprint=FINGERPRINT)
    galleries.close()


def _item(number: int) -> Item:
    return Item(
        id=f"crop:{number:012x}",
        modality=tuple(Modality)[number % 2],
        identity="erased" if number < PERSON else f"person-{number // CROPS}",
        camera=f"camera-{number % CAMERAS}",
        captured_at=BEGIN + timedelta(seconds=number),
        attributes={"site": "north" if number % 3 else "south"},
    )


@contextmanager
def temporary_copy(directory: Path) -> Iterator[Path]:
    """Yield a temporary copy of the directory, which a server may change."""
    with tempfile.TemporaryDirectory(dir=directory.parent) as scratch:
        yield Path(shutil.copytree(directory, Path(scratch) / "data"))


def start(count: int, dimension: int, vector_type: VectorType, directory: Path | None = None) -> dict[str, Any]:
    """Return the figures of one gallery size."""
    vectors = count * dimension * vector_type.dtype.itemsize
    with temporary_copy(filled_data_dir(count, dimension, vector_type, directory)) as used:
        with serving(data=used) as server:
            figures: dict[str, Any] = {
                "items": count,
                "dimension": dimension,
                "type": vector_type.value,
                "vectors_bytes": vectors,
                "with snapshot": _startup_metrics(server),
            }
            if count > PERSON:
                figures |= _request_metrics(server)
            server.process.popen.kill()
        with serving(data=used) as server:
            figures["without"] = _startup_metrics(server)
    return figures


def _startup_metrics(server: Server) -> dict[str, Any]:
    return {
        "ready_s": round(server.ready_s, 2),
        "cpu_s": round(server.process.cpu(), 2),
        "resident_bytes": server.process.memory(),
    }


def _request_metrics(server: Server) -> dict[str, Any]:
    query = {"query": {"k": 10}, "item_id": _item(PERSON).id}
    some = {"query": {"k": 10, "filter": {"cameras": ["camera-7"]}}, "item_id": _item(PERSON).id}
    with httpx2.Client(base_url=server.url, timeout=120) as client:
        return {
            "search_ms": _request_ms(client, "POST", "/search", 9, json=query),
            "search_of_one_camera_ms": _request_ms(client, "POST", "/search", 9, json=some),
            f"erase_of_{PERSON}_ms": _request_ms(client, "DELETE", "/items", params={"identity": "erased"}),
            "erase_of_one_more_ms": _request_ms(client, "DELETE", f"/items/{_item(PERSON).id}"),
            "resident_bytes_after": server.process.memory(),
        }


def _request_ms(client: httpx2.Client, method: str, path: str, times: int = 1, **options: Any) -> float:
    """Return the median milliseconds of a request, measured by the client."""
    durations = []
    for _ in range(times):
        started = time.perf_counter()
        client.request(method, f"/v1/galleries/{GALLERY}{path}", **options).raise_for_status()
        durations.append(1000 * (time.perf_counter() - started))
    return round(statistics.median(durations), 1)


def measure(effort: Effort) -> BenchmarkResult:
    """Measure start and memory with 0, 100,000 and (unless quick) a million items, 512 dimensions in float16."""
    result = BenchmarkResult()
    rows: list[Row] = []
    for count in (0, 100_000) if effort.quick else (0, 100_000, 1_000_000):
        if available_bytes() < 4 * 2 * count * 512:
            result.missing.append(f"a server over {count:,} items: not enough memory")
            continue
        figures = start(count, 512, VectorType.FLOAT16)
        for how in ("with snapshot", "without"):
            startup = figures[how]
            rows.append(
                {
                    "items": count,
                    "snapshot": "yes" if how == "with snapshot" else "no",
                    "ready, s": startup["ready_s"],
                    "CPU, s": startup["cpu_s"],
                    "resident MiB": startup["resident_bytes"]["now"] // 2**20,
                    "highest MiB": startup["resident_bytes"]["highest"] // 2**20,
                    "vectors MiB": figures["vectors_bytes"] // 2**20,
                }
            )
    result.tables["start and memory"] = rows
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["start"])
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--dimension", type=int, default=512)
    parser.add_argument("--type", type=VectorType, choices=list(VectorType), default=VectorType.FLOAT16)
    parser.add_argument("--directory", type=Path)
    given = parser.parse_args()
    json.dump(start(given.items, given.dimension, given.type, given.directory), sys.stdout, indent=2)


if __name__ == "__main__":
    main()
