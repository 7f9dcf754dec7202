"""Which engine runs our graphs fastest on this CPU: ONNX Runtime, which the server uses, or OpenVINO, in bf16 too.

Both run as the server does: a crop alone with every core, and batches of several on each core with a thread of its own.
What a lower precision does to the vectors stands beside it.
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
from benchmarks.harness.effort import Effort, Found
from benchmarks.harness.models import LIGHT, precisions_of, resnet50
from benchmarks.harness.process import Process
from benchmarks.harness.session import RawSession, either_way
from benchmarks.harness.statistics import alternate, ratio
from models.card import Card, Precision
from server.embedding.cores import usable_cores
from server.embedding.processor import bfloat_is_fast

__all__ = ["measure", "measure_model"]

OURS_TO_OTHERS = 1.0
FAST = ("ONNX Runtime, int8", "OpenVINO, bf16", "OpenVINO, int8")
"""What a server would choose between: bf16 beside int8, as both give up some of the numbers for speed."""
SERVED = "OpenVINO, bf16" if bfloat_is_fast() else "ONNX Runtime, int8"
PAIRS = (("ONNX Runtime, fp32", "OpenVINO, fp32"), *((SERVED, other) for other in FAST if other != SERVED))


@dataclass(frozen=True, slots=True)
class Way:
    """So many callers at once, who share the cores, with so many crops a batch."""

    callers: int
    batch: int


ALONE, SEVERAL = Way(1, 1), Way(usable_cores(), 4)


@dataclass(frozen=True, slots=True)
class Ran:
    """Crops a second, and the vectors of the last batch."""

    rate: float
    vectors: NDArray[np.float32]


Run = Callable[[Way, float], Ran]


def measure(effort: Effort) -> Found:
    """The light model and a ResNet-50."""
    found = Found()
    for name, folder in {"light": LIGHT, "ResNet-50": resnet50()}.items():
        measure_model(effort, found, name, folder)
    return found


def measure_model(effort: Effort, found: Found, name: str, folder: Path) -> None:
    """Add the table and the figures of one model; an engine that does not start is noted."""
    with ExitStack() as stack:
        engines = _engines(stack, found, name, folder)
        runs = {
            (engine, way): partial(run, way, effort.seconds)
            for engine, run in engines.items()
            for way in (ALONE, SEVERAL)
        }
        taken = alternate(runs, effort.rounds)
    rates = {key: [run.rate for run in rounds] for key, rounds in taken.items()}
    exact = taken["ONNX Runtime, fp32", SEVERAL][0].vectors
    found.tables[name] = [
        {
            "engine": engine,
            "callers": way.callers,
            "batch": way.batch,
            "crops/s": round(statistics.median(rates[engine, way]), 1),
            "smallest cosine with fp32": round(_smallest_cosine(taken[engine, way][0].vectors, exact[: way.batch]), 5),
        }
        for engine, way in runs
    ]
    found.figures += [
        ratio(
            f"{name}, {title}: {ours} / {theirs}",
            rates[ours, way],
            rates[theirs, way],
            "at least",
            OURS_TO_OTHERS,
        )
        for title, way in {"a crop alone": ALONE, "a thread a core": SEVERAL}.items()
        for ours, theirs in PAIRS
        if ours in engines and theirs in engines
    ]


def _smallest_cosine(vectors: NDArray[np.float32], others: NDArray[np.float32]) -> float:
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(others, axis=1)
    return float(np.min(np.sum(vectors * others, axis=1) / lengths))


def _engines(stack: ExitStack, found: Found, name: str, folder: Path) -> dict[str, Run]:
    engines: dict[str, Run] = {}
    files = Card.read(folder / "card.json").precisions
    for precision in precisions_of(folder):
        if precision is not Precision.BF16:
            engines[f"ONNX Runtime, {precision}"] = partial(_run_ours, either_way(folder, precision))
    wishes: list[tuple[str, Precision, Literal["f32", "bf16"]]] = [
        ("OpenVINO, fp32", Precision.FP32, "f32"),
        ("OpenVINO, bf16", Precision.FP32, "bf16"),
        ("OpenVINO, int8", Precision.INT8, "f32"),
    ]
    for engine, precision, hint in wishes:
        if precision in files:
            try:
                process = stack.enter_context(peers.openvino((folder / files[precision].file).resolve(), hint))
            except (OSError, RuntimeError) as error:
                found.missing.append(f"{engine} over {name}: {error}")
            else:
                engines[engine] = partial(_run_theirs, process)
    return engines


def _run_ours(sessions: Mapping[int, RawSession], way: Way, seconds: float) -> Ran:
    session = sessions[way.callers]
    return Ran(session.rate_of(way.callers, way.batch, seconds), session.run(way.batch))


def _run_theirs(process: Process, way: Way, seconds: float) -> Ran:
    with process.running():
        answer = process.ask({"callers": way.callers, "batch": way.batch, "seconds": seconds})
    return Ran(answer["rate"], np.array(answer["vectors"], np.float32))
