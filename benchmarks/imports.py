"""What imports cost: crops by tar beside the bare ONNX session, ready-made vectors by NDJSON and by Parquet.

    python benchmarks/imports.py crops [--crops 2000] [--model FOLDER]
    python benchmarks/imports.py vectors [--vectors 100000] [--dimension 512]

Starts `vireid serve` over an empty data directory. Prints JSON: items a second, CPU milliseconds an item of the server,
its resident memory before, at the peak and after, and for crops the latency of queries while the import runs.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import socket
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as arrow
import pyarrow.parquet
from PIL import Image

from models.card import Modality, Precision
from server.embedding.session import OnnxEmbedder
from tests.server import standin
from vireid.client import Client
from vireid.drawing import draw_person
from vireid.packing import packed

ZOO = Path(__file__).resolve().parents[1] / "models" / "zoo"
TICKS = os.sysconf("SC_CLK_TCK")


@contextmanager
def serving(**settings: str) -> Iterator[tuple[Client, int]]:
    """A server on a free port over an empty data directory: a client and the process's number."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as data:
        environment = os.environ | {"VIREID_PORT": str(port), "VIREID_DATA_DIR": data, **settings}
        server = subprocess.Popen(["vireid", "serve"], env=environment, stdout=subprocess.DEVNULL)
        try:
            with Client(f"http://127.0.0.1:{port}") as client:
                until(lambda: client.ready().ready)
                yield client, server.pid
        finally:
            server.terminate()
            server.wait()


def until(true: Callable[[], bool], seconds: float = 60) -> None:
    """Wait for it, whatever is raised meanwhile."""
    end = time.monotonic() + seconds
    while True:
        try:
            if true():
                return
        except Exception:
            if time.monotonic() > end:
                raise
        time.sleep(0.2)


def memory(process: int) -> dict[str, int]:
    """Resident MiB, now and at the highest."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    found = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.startswith(("VmRSS", "VmHWM"))}
    return {"now": found["VmRSS"] // 1024, "peak": found["VmHWM"] // 1024}


def cpu(process: int) -> float:
    """Seconds of the processor that a process has had."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def run(client: Client, process: int, gallery: str, body: Any, kind: Any, **options: Any) -> dict[str, Any]:
    """Import, and say what it took."""
    before, used, started = memory(process), cpu(process), time.perf_counter()
    job = client.import_file(gallery, body, kind, **options)
    uploaded = time.perf_counter() - started
    *_, end = client.watch(job.id)
    seconds = time.perf_counter() - started
    assert (end.state, end.failed) == ("succeeded", 0), end
    after = memory(process)
    return {
        "items": end.done,
        "upload_s": round(uploaded, 2),
        "items_per_s": round(end.processed / (seconds - uploaded), 1),
        "cpu_ms_per_item": round(1e3 * (cpu(process) - used) / max(1, end.processed), 3),
        "resident_mib": {"before": before["now"], "peak": after["peak"], "after": after["now"]},
    }


def latencies(client: Client, crop: bytes, enough: Callable[[int], bool]) -> dict[str, float]:
    """Milliseconds of single queries, one after the other, until there are enough."""
    took: list[float] = []
    while not enough(len(took)):
        started = time.perf_counter()
        client.search("g", [crop], k=10)
        took.append(1e3 * (time.perf_counter() - started))
    cuts = statistics.quantiles(took, n=100)
    return {"queries": len(took), "median_ms": round(cuts[49], 1), "p99_ms": round(cuts[98], 1)}


def drawn(folder: Path, count: int) -> list[Path]:
    """JPEG files of drawn people."""
    for number in range(count):
        out = io.BytesIO()
        Image.fromarray(draw_person(number // 4, Modality.VISIBLE, seed=number, size=(128, 64))).save(out, "JPEG")
        (folder / f"{number // 4:05}_c{number % 4}_{number}.jpg").write_bytes(out.getvalue())
    return sorted(folder.iterdir())


def bare(model: Path, crops: int) -> dict[str, float]:
    """The session alone, in its largest batches, of crops that are decoded already."""
    embedder = OnnxEmbedder(model, Precision.FP32, "cpu")
    shape = (embedder.largest_batch, embedder.card.input.height, embedder.card.input.width, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    modalities = np.zeros(len(images), np.int64)
    started, used = time.perf_counter(), time.process_time()
    runs = max(1, crops // len(images))
    for _ in range(runs):
        embedder.embed(images, modalities)
    count = runs * len(images)
    return {
        "items_per_s": round(count / (time.perf_counter() - started), 1),
        "cpu_ms_per_item": round(1e3 * (time.process_time() - used) / count, 3),
    }


def crops(count: int, model: Path) -> dict[str, Any]:
    """A tar of drawn crops, then the same again, then another one while queries come."""
    with tempfile.TemporaryDirectory() as folder, serving(VIREID_MODEL_DIR=str(model.parent)) as (client, process):
        files = drawn(Path(folder), count)
        query = files[0].read_bytes()
        client.create_gallery("g", model=model.name)
        client.create_gallery("h", model=model.name)
        found: dict[str, Any] = {"bare_before": bare(model, count // 4)}
        found["tar"] = run(client, process, "g", packed(Path(folder), files), "tar", modality="visible")
        found["bare_after"] = bare(model, count // 4)
        found["tar_again"] = run(client, process, "g", packed(Path(folder), files), "tar", modality="visible")
        found["queries_alone"] = latencies(client, query, lambda n: n >= 100)
        done = threading.Event()
        job = client.import_file("h", packed(Path(folder), files), "tar", modality="visible")
        watcher = threading.Thread(target=lambda: [*client.watch(job.id), done.set()])
        watcher.start()
        found["queries_during_import"] = latencies(client, query, lambda n: done.is_set() and n >= 2)
        watcher.join()
        return found


def vectors(count: int, dimension: int) -> dict[str, Any]:
    """The same random unit vectors as NDJSON, as Parquet, and once more."""
    with tempfile.TemporaryDirectory() as folder:
        standin.DIMENSION = dimension  # no model runs: a gallery is bound to one all the same
        standin.write_model(Path(folder) / "zoo" / "wide")
        draw = np.random.default_rng(0).standard_normal((count, dimension)).astype(np.float32)
        draw /= np.linalg.norm(draw, axis=1, keepdims=True)
        lines, columns = Path(folder) / "a.ndjson", Path(folder) / "a.parquet"
        with lines.open("w") as file:
            for number, vector in enumerate(draw):
                row = {"id": f"v{number:07}", "modality": "visible", "identity": f"p{number // 10}", "camera": "c1"}
                file.write(json.dumps({**row, "vector": [round(x, 8) for x in vector.tolist()]}) + "\n")
        table = arrow.table(
            {
                "id": [f"w{number:07}" for number in range(count)],
                "modality": ["visible"] * count,
                "identity": [f"p{number // 10}" for number in range(count)],
                "vector": arrow.FixedSizeListArray.from_arrays(arrow.array(draw.ravel()), dimension),
            }
        )
        arrow.parquet.write_table(table, columns)
        with serving(VIREID_MODEL_DIR=str(Path(folder) / "zoo")) as (client, process):
            found: dict[str, Any] = {}
            for name, path, again in (("ndjson", lines, True), ("parquet", columns, False)):
                client.create_gallery(name)
                found[name] = run(client, process, name, path, name)
                if again:
                    found[f"{name}_again"] = run(client, process, name, path, name)
                client.delete_gallery(name)
            return found


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser()
    which = parser.add_subparsers(dest="which", required=True)
    pictures = which.add_parser("crops")
    pictures.add_argument("--crops", type=int, default=2000)
    pictures.add_argument("--model", type=Path, default=ZOO / "baseline-lite")
    numbers = which.add_parser("vectors")
    numbers.add_argument("--vectors", type=int, default=100_000)
    numbers.add_argument("--dimension", type=int, default=512)
    asked = parser.parse_args()
    found = crops(asked.crops, asked.model) if asked.which == "crops" else vectors(asked.vectors, asked.dimension)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
