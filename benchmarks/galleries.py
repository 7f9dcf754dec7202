"""What a large gallery costs: the time until a server that holds it is ready, its memory, a search, an erasure.

    python -m benchmarks.galleries start [--items 1000000] [--dimension 512] [--type float16] [--directory DIR]

Fills a store through the classes of the server, closes it (which writes the snapshot), and starts `vireid serve` over
it: once with the snapshot and, after killing it, once without. DIR is left as it is filled, and used again if it is.
Prints JSON. Times count from the start of the process; its modules and the data lie in the page cache.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import numpy as np

from models.card import Modality
from server.gallery.flat import FaissFlat
from server.gallery.service import Galleries
from server.gallery.snapshots import Snapshots
from server.gallery.store import SqlStore
from server.gallery.types import Item, NewItem, VectorType
from vireid.hosting import listen

GALLERY, FINGERPRINT = "large", "f" * 64
BATCH, CROPS, CAMERAS = 2000, 20, 40
PERSON = 1000
"""Items of the person who is erased."""
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def fill(directory: Path, count: int, dimension: int, vector_type: VectorType) -> None:
    """Items of people seen by cameras, ``CROPS`` each and one of ``PERSON``, with random unit vectors."""
    galleries = Galleries(
        SqlStore(f"sqlite:///{directory}/vireid.db"), FaissFlat, Snapshots(directory / "index", least=1)
    )
    galleries.create(GALLERY, model="none", fingerprint=FINGERPRINT, dimension=dimension, vector_type=vector_type)
    for start in range(0, count, BATCH):
        numbers = range(start, min(start + BATCH, count))
        vectors = np.random.default_rng(start).standard_normal((len(numbers), dimension), np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        items = [NewItem(_item(number), vector) for number, vector in zip(numbers, vectors, strict=True)]
        galleries.put(GALLERY, items, fingerprint=FINGERPRINT)
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
def serving(directory: Path) -> Iterator[tuple[httpx2.Client, subprocess.Popen[bytes], float]]:
    """A server over it that is ready: a client, the process, the seconds that it took."""
    with listen("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    environment = os.environ | {"VIREID_PORT": str(port), "VIREID_DATA_DIR": str(directory)}
    started = time.perf_counter()
    command = [Path(sys.executable).with_name("vireid"), "serve"]
    with (directory.parent.parent / "server.log").open("ab") as log:
        server = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=log)
    try:
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as client:
            while not _ready(client):
                if server.poll() is not None:
                    raise SystemExit(f"the server has ended, see {log.name}")
                time.sleep(0.1)
            yield client, server, time.perf_counter() - started
    finally:
        server.terminate()
        server.wait()


def _ready(client: httpx2.Client) -> bool:
    try:
        return client.get("/readyz").status_code == 200
    except httpx2.TransportError:
        return False


def memory(process: int) -> dict[str, int]:
    """Resident bytes, now and at the highest."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
    return {"now": _bytes(lines["VmRSS"]), "highest": _bytes(lines["VmHWM"])}


def _bytes(kibibytes: str) -> int:
    return 1024 * int(kibibytes.split()[0])


def cpu(process: int) -> float:
    """Seconds of all cores that it has used."""
    fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return round((int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), 2)


def timed(client: httpx2.Client, method: str, path: str, times: int = 1, **options: Any) -> float:
    """Median milliseconds of a request, as its client sees it."""
    durations = []
    for _ in range(times):
        started = time.perf_counter()
        client.request(method, f"/v1/galleries/{GALLERY}{path}", **options).raise_for_status()
        durations.append(1000 * (time.perf_counter() - started))
    return round(statistics.median(durations), 1)


def start(count: int, dimension: int, vector_type: VectorType, directory: Path) -> dict[str, Any]:
    """The figures. The servers use up a copy of ``directory`` beside it."""
    if not (directory / "vireid.db").exists():
        begun = time.perf_counter()
        fill(directory, count, dimension, vector_type)
        print(f"filled in {time.perf_counter() - begun:.0f} s", file=sys.stderr)
    vectors = count * dimension * vector_type.dtype.itemsize
    query = {"query": {"k": 10}, "item_id": _item(PERSON).id}
    some = {"query": {"k": 10, "filter": {"cameras": ["camera-7"]}}, "item_id": _item(PERSON).id}
    with tempfile.TemporaryDirectory(dir=directory.parent) as copy:
        used = Path(shutil.copytree(directory, Path(copy) / "data"))
        with serving(used) as (client, server, seconds):
            resident = memory(server.pid)
            figures: dict[str, Any] = {
                "items": count,
                "dimension": dimension,
                "type": vector_type.value,
                "vectors_bytes": vectors,
                "with snapshot": {
                    "ready_s": round(seconds, 2),
                    "cpu_s": cpu(server.pid),
                    "resident_bytes": resident,
                    "resident_to_vectors": round(resident["now"] / vectors, 3),
                },
                "search_ms": timed(client, "POST", "/search", 9, json=query),
                "search_of_one_camera_ms": timed(client, "POST", "/search", 9, json=some),
                f"erase_of_{PERSON}_ms": timed(client, "DELETE", "/items", params={"identity": "erased"}),
                "erase_of_one_more_ms": timed(client, "DELETE", f"/items/{_item(PERSON).id}"),
                "resident_bytes_after": memory(server.pid),
            }
            server.send_signal(signal.SIGKILL)
        with serving(used) as (_client, server, seconds):
            figures["without"] = {
                "ready_s": round(seconds, 2),
                "cpu_s": cpu(server.pid),
                "resident_bytes": memory(server.pid),
            }
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["start"])
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--dimension", type=int, default=512)
    parser.add_argument("--type", type=VectorType, choices=list(VectorType), default=VectorType.FLOAT16)
    parser.add_argument("--directory", type=Path)
    given = parser.parse_args()
    with ExitStack() as stack:
        directory = given.directory or Path(stack.enter_context(tempfile.TemporaryDirectory())) / "data"
        print(json.dumps(start(given.items, given.dimension, given.type, directory), indent=2))


if __name__ == "__main__":
    main()
