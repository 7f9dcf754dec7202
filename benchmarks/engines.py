"""Comparison of inference engines on this CPU: ONNX Runtime, which the server uses, and OpenVINO, also in bf16.

Both run as in the server: single crops on all cores, and batches on every core with one thread each. The result also
reports how far lower precisions change the vectors.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import peers
from benchmarks.harness.effort import BenchmarkResult, Effort
from benchmarks.harness.models import LIGHT, precisions_of, resnet50
from benchmarks.harness.process import Process
from benchmarks.harness.session import RawSession, sessions_by_callers
from benchmarks.harness.statistics import alternate, ratio
from models.card import Card, Precision
from models.cores import usable_cores
from server.hardware.cpu_features import bfloat_is_fast

__all__ = ["measure", "measure_model"]

OURS_TO_OTHERS = 1.0
FAST = ("ONNX Runtime, int8", "OpenVINO, bf16", "OpenVINO, int8")
"""The candidates for a fast server: bf16 and int8 both trade precision for speed."""
SERVED = "OpenVINO, bf16" if bfloat_is_fast() else "ONNX Runtime, int8"
PAIRS = (("ONNX Runtime, fp32", "OpenVINO, fp32"), *((SERVED, other) for other in FAST if other != SERVED))


@dataclass(frozen=True, slots=True)
class Workload:
    """Number of concurrent callers, which share the cores, and crops per batch."""

    callers: int
    batch: int


SINGLE, SEVERAL = Workload(1, 1), Workload(usable_cores(), 4)


@dataclass(frozen=True, slots=True)
class RunResult:
    """Crops per second, and the vectors of the last batch."""

    rate: float
    vectors: NDArray[np.float32]


Run = Callable[[Workload, float], RunResult]


def measure(effort: Effort) -> BenchmarkResult:
    """Measure the light model and a ResNet-50."""
    result = BenchmarkResult()
    for name, folder in {"light": LIGHT, "ResNet-50": resnet50()}.items():
        measure_model(effort, result, name, folder)
    return result


def measure_model(effort: Effort, result: BenchmarkResult, name: str, folder: Path) -> None:
    """Add the table and the figures of one model; record an engine that does not start as missing."""
    with ExitStack() as stack:
        engines = _engines(stack, result, name, folder)
        runs = {
            (engine, workload): partial(run, workload, effort.seconds)
            for engine, run in engines.items()
            for workload in (SINGLE, SEVERAL)
        }
        taken = alternate(runs, effort.rounds)
    rates = {key: [run.rate for run in rounds] for key, rounds in taken.items()}
    exact = taken["ONNX Runtime, fp32", SEVERAL][0].vectors
    result.tables[name] = [
        {
            "engine": engine,
            "callers": workload.callers,
            "batch": workload.batch,
            "crops/s": round(statistics.median(rates[engine, workload]), 1),
            "smallest cosine with fp32": round(
                _smallest_cosine(taken[engine, workload][0].vectors, exact[: workload.batch]), 5
            ),
        }
        for engine, workload in runs
    ]
    result.figures += [
        ratio(
            f"{name}, {title}: {ours} / {theirs}",
            rates[ours, workload],
            rates[theirs, workload],
            "at least",
            OURS_TO_OTHERS,
        )
        for title, workload in {"a crop alone": SINGLE, "a thread a core": SEVERAL}.items()
        for ours, theirs in PAIRS
        if ours in engines and theirs in engines
    ]


def _smallest_cosine(vectors: NDArray[np.float32], others: NDArray[np.float32]) -> float:
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(others, axis=1)
    return float(np.min(np.sum(vectors * others, axis=1) / lengths))


def _engines(stack: ExitStack, result: BenchmarkResult, name: str, folder: Path) -> dict[str, Run]:
    engines: dict[str, Run] = {}
    files = Card.read(folder / "card.json").precisions
    for precision in precisions_of(folder):
        if precision is not Precision.BF16:
            engines[f"ONNX Runtime, {precision}"] = partial(_run_ours, sessions_by_callers(folder, precision))
    requests: list[tuple[str, Precision, Literal["f32", "bf16"]]] = [
        ("OpenVINO, fp32", Precision.FP32, "f32"),
        ("OpenVINO, bf16", Precision.FP32, "bf16"),
        ("OpenVINO, int8", Precision.INT8, "f32"),
    ]
    for engine, precision, hint in requests:
        if precision in files:
            try:
                process = stack.enter_context(peers.openvino((folder / files[precision].file).resolve(), hint))
            except (OSError, RuntimeError) as error:
                result.missing.append(f"{engine} over {name}: {error}")
            else:
                engines[engine] = partial(_run_theirs, process)
    return engines


def _run_ours(sessions: Mapping[int, RawSession], workload: Workload, seconds: float) -> RunResult:
    session = sessions[workload.callers]
    return RunResult(session.rate_of(workload.callers, workload.batch, seconds), session.run(workload.batch))


def _run_theirs(process: Process, workload: Workload, seconds: float) -> RunResult:
    with process.running():
        answer = process.call({"callers": workload.callers, "batch": workload.batch, "seconds": seconds})
    return RunResult(answer["rate"], np.array(answer["vectors"], np.float32))
