"""Import throughput: crops by tar compared with the bare session and during queries; vectors by NDJSON and Parquet.

    python -m benchmarks.imports crops [--crops 2000] [--model FOLDER]
    python -m benchmarks.imports vectors [--vectors 100000] [--dimension 512]

Starts `vireid serve` on an empty data directory. Prints JSON: items per second, CPU milliseconds per item, resident
memory before, at the peak and after, and for crops the latency of queries while the import runs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as arrow
import pyarrow.parquet

from benchmarks.harness.crops import draw_crops, form, tar
from benchmarks.harness.effort import BenchmarkResult, Effort
from benchmarks.harness.models import LIGHT, precisions_of, resnet50
from benchmarks.harness.process import Process
from benchmarks.harness.server import serving
from benchmarks.harness.session import sessions_by_callers
from benchmarks.harness.statistics import ratio
from benchmarks.harness.wrk import Load, check_wrk, post
from models.card import Precision
from tests.server import stub_model
from vireid.client import Client

__all__ = ["measure"]

IMPORT_TO_RAW = 0.85
DURING_TO_IDLE = 2.0
BATCHES = (1, 4, 8)
PERCENTILES = ("p50", "p95", "p99")
DRAWN = 2000
"""Number of different crops; drawing more would only take time."""
IMPORTED = {"light": 4000, "ResNet-50": 400}
"""Crops per import, enough that its start and end hardly matter."""


def run(client: Client, process: Process, gallery: str, body: Any, kind: Any, **options: Any) -> dict[str, Any]:
    """Run an import and return its figures.

    Raises:
        RuntimeError: not everything was imported.
    """
    before, used, started = process.memory(), process.cpu(), time.perf_counter()
    job = client.import_file(gallery, body, kind, **options)
    uploaded = time.perf_counter() - started
    *_, end = client.watch(job.id)
    seconds = time.perf_counter() - started
    if (end.state, end.failed) != ("succeeded", 0):
        raise RuntimeError(f"the import has not succeeded: {end}")
    after = process.memory()
    return {
        "items": end.done,
        "upload_s": round(uploaded, 2),
        "items_per_s": round(end.processed / (seconds - uploaded), 1),
        "cpu_ms_per_item": round(1e3 * (process.cpu() - used) / max(1, end.processed), 3),
        "resident_mib": {
            "before": before["now"] // 2**20,
            "peak": after["highest"] // 2**20,
            "after": after["now"] // 2**20,
        },
    }


def crops(count: int, model: Path, seconds: float, precision: Precision = Precision.FP32) -> dict[str, Any]:
    """Import a tar of drawn crops twice, then one three times as large while queries run."""
    sessions = sessions_by_callers(model, precision)

    def bare() -> float:
        ways = product(sessions.items(), BATCHES)
        return max(session.rate_of(callers, batch, seconds / 2) for (callers, session), batch in ways)

    files = draw_crops(min(count, DRAWN), size=(128, 64))
    files = [files[number % len(files)] for number in range(count)]
    query = form(files[:1], query=json.dumps({"k": 10}))
    result: dict[str, Any] = {"batch_ms": sessions[1].latency_ms(8, seconds / 2)}
    with serving(model, VIREID_PRECISION=precision) as server, Client(server.url) as client:

        def queries() -> Load:
            return post(f"{server.url}/v1/galleries/g/search", query.content, query.headers, 1, seconds)

        client.create_gallery("g", model=model.name)
        client.create_gallery("h", model=model.name)
        result["bare_before"] = bare()
        result["tar"] = run(client, server.process, "g", [tar(files)], "tar", modality="visible")
        result["bare_after"] = bare()
        result["tar_again"] = run(client, server.process, "g", [tar(files)], "tar", modality="visible")
        queries()
        result["idle"] = queries()
        longer = 3 * max(count, int(seconds * result["tar"]["items_per_s"]))
        job = client.import_file("h", [tar(_repeated(files, longer))], "tar", modality="visible")
        while client.job(job.id).done == 0:
            time.sleep(0.05)
        result["during"] = queries()
        if client.job(job.id).finished_at is not None:
            raise RuntimeError("the import had ended before the queries did: ask for more crops")
        client.cancel_job(job.id)
    return result


def _repeated(files: list[bytes], count: int) -> list[bytes]:
    return [files[number % len(files)] for number in range(count)]


def vectors(count: int, dimension: int) -> dict[str, Any]:
    """Import the same random unit vectors as NDJSON (twice) and as Parquet."""
    with tempfile.TemporaryDirectory() as folder:
        stub_model.DIMENSION = dimension  # the model never runs, but a gallery needs one
        wide = Path(folder) / "wide"
        stub_model.write_model(wide)
        with serving(wide) as server, Client(server.url) as client:
            result: dict[str, Any] = {}
            for name, path, again in _files(Path(folder), count, dimension):
                client.create_gallery(name)
                result[name] = run(client, server.process, name, path, name)
                if again:
                    result[f"{name}_again"] = run(client, server.process, name, path, name)
                client.delete_gallery(name)
            return result


def _files(folder: Path, count: int, dimension: int) -> Iterator[tuple[str, Path, bool]]:
    """Yield the kind of a file, its path, and whether to import it twice."""
    draw = np.random.default_rng(0).standard_normal((count, dimension)).astype(np.float32)
    draw /= np.linalg.norm(draw, axis=1, keepdims=True)
    lines, columns = folder / "a.ndjson", folder / "a.parquet"
    with lines.open("w") as file:
        for number, vector in enumerate(draw):
            row = {"id": f"v{number:07}", "modality": "visible", "identity": f"p{number // 10}", "camera": "c1"}
            file.write(json.dumps({**row, "vector": [round(x, 8) for x in vector.tolist()]}) + "\n")
    yield "ndjson", lines, True
    table = arrow.table(
        {
            "id": [f"w{number:07}" for number in range(count)],
            "modality": ["visible"] * count,
            "identity": [f"p{number // 10}" for number in range(count)],
            "vector": arrow.FixedSizeListArray.from_arrays(arrow.array(draw.ravel()), dimension),
        }
    )
    arrow.parquet.write_table(table, columns)
    yield "parquet", columns, False


def measure(effort: Effort) -> BenchmarkResult:
    """Measure imports of crops, with both models in each of their precisions, and of vectors."""
    check_wrk()
    result = BenchmarkResult()
    result.tables |= {"imports": [], "queries": []}
    for name, folder in {"light": LIGHT, "ResNet-50": resnet50()}.items():
        for precision in precisions_of(folder):
            _measure_crops(effort, result, f"{name}, {precision}", IMPORTED[name], folder, precision)
    for kind, each in vectors(20_000 if effort.quick else 100_000, 512).items():
        peak = each["resident_mib"]["peak"]
        row = {"what": f"vectors, 512: {kind}", "items/s": each["items_per_s"], "peak MiB": peak}
        result.tables["imports"].append(row)
    return result


def _measure_crops(
    effort: Effort, result: BenchmarkResult, title: str, count: int, model: Path, precision: Precision
) -> None:
    taken = [crops(count, model, effort.seconds, precision) for _ in range(2 if effort.quick else effort.rounds)]
    rates = [each["tar"]["items_per_s"] for each in taken]
    bare = [max(each["bare_before"], each["bare_after"]) for each in taken]
    result.tables["imports"].append(
        {
            "what": f"crops by tar, {title}",
            "items/s": _middle(rates),
            "bare session, crops/s": _middle(bare),
            "again (all skipped), items/s": _middle(each["tar_again"]["items_per_s"] for each in taken),
            "peak MiB": max(each["tar"]["resident_mib"]["peak"] for each in taken),
        }
    )
    for when, key in (("idle", "idle"), ("while an import runs", "during")):
        loads: list[Load] = [each[key] for each in taken]
        latencies = {f"{name} ms": _middle(getattr(load, f"{name}_ms") for load in loads) for name in PERCENTILES}
        result.tables["queries"].append({"model": title, "queries": when, **latencies})
    during = [each["during"].p95_ms - each["batch_ms"] for each in taken]
    idle = [each["idle"].p95_ms for each in taken]
    result.figures += [
        ratio(f"{title}: bulk import / bare session", rates, bare, "at least", IMPORT_TO_RAW),
        ratio(f"{title}: (query p95 in an import - one batch) / idle", during, idle, "at most", DURING_TO_IDLE),
    ]


def _middle(values: Iterable[float]) -> float:
    return round(statistics.median(values), 1)


def main() -> None:
    """Run one of the two modes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    mode_parsers = parser.add_subparsers(dest="mode", required=True)
    crop_parser = mode_parsers.add_parser("crops")
    crop_parser.add_argument("--crops", type=int, default=2000)
    crop_parser.add_argument("--model", type=Path, default=LIGHT)
    vector_parser = mode_parsers.add_parser("vectors")
    vector_parser.add_argument("--vectors", type=int, default=100_000)
    vector_parser.add_argument("--dimension", type=int, default=512)
    arguments = parser.parse_args()
    result = (
        crops(arguments.crops, arguments.model, 5)
        if arguments.mode == "crops"
        else vectors(arguments.vectors, arguments.dimension)
    )
    json.dump(result, sys.stdout, indent=2, default=load_as_json)


def load_as_json(load: Load) -> dict[str, float]:
    """Return a load as JSON."""
    return {"queries_per_s": load.rate, "p50_ms": load.p50_ms, "p95_ms": load.p95_ms, "p99_ms": load.p99_ms}


if __name__ == "__main__":
    main()
