"""Which engine runs our graphs fastest on this CPU: ONNX Runtime, which the server uses, or OpenVINO, in bf16 too.

Both are given every core and one batch after the other. What a lower precision does to the vectors stands beside it.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
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
from benchmarks.harness.session import RawSession
from benchmarks.harness.statistics import alternate, ratio
from models.card import Card, Precision

__all__ = ["measure", "measure_model"]

BATCHES = (1, 8)
COMPARED = 8
OURS_TO_OTHERS = 1.0
PAIRS = (
    ("ONNX Runtime, fp32", "OpenVINO, fp32"),
    ("ONNX Runtime, int8", "OpenVINO, bf16"),
    ("ONNX Runtime, int8", "OpenVINO, int8"),
)
"""What a server would choose between: bf16 beside int8, as both give up some of the numbers for speed."""


@dataclass(frozen=True, slots=True)
class Ran:
    """Crops a second, and the vectors of the last batch."""

    rate: float
    vectors: NDArray[np.float32]


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
            (engine, batch): partial(run, batch, effort.seconds) for engine, run in engines.items() for batch in BATCHES
        }
        taken = alternate(runs, effort.rounds)
    rates = {key: [run.rate for run in rounds] for key, rounds in taken.items()}
    exact = taken["ONNX Runtime, fp32", COMPARED][0].vectors
    found.tables[name] = [
        {
            "engine": engine,
            "batch": batch,
            "crops/s": round(statistics.median(rates[engine, batch]), 1),
            "smallest cosine with fp32": round(_smallest_cosine(taken[engine, batch][0].vectors, exact[:batch]), 5),
        }
        for engine, batch in runs
    ]
    found.figures += [
        ratio(
            f"{name}, batches of {COMPARED}: {ours} / {theirs}",
            rates[ours, COMPARED],
            rates[theirs, COMPARED],
            "at least",
            OURS_TO_OTHERS,
        )
        for ours, theirs in PAIRS
        if ours in engines and theirs in engines
    ]


def _smallest_cosine(vectors: NDArray[np.float32], others: NDArray[np.float32]) -> float:
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(others, axis=1)
    return float(np.min(np.sum(vectors * others, axis=1) / lengths))


def _engines(stack: ExitStack, found: Found, name: str, folder: Path) -> dict[str, Callable[[int, float], Ran]]:
    engines: dict[str, Callable[[int, float], Ran]] = {}
    files = Card.read(folder / "card.json").precisions
    for precision in precisions_of(folder):
        engines[f"ONNX Runtime, {precision}"] = partial(_run_ours, RawSession(folder, precision))
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


def _run_ours(session: RawSession, batch: int, seconds: float) -> Ran:
    return Ran(session.rate(batch, seconds), session.run(batch))


def _run_theirs(process: Process, batch: int, seconds: float) -> Ran:
    with process.running():
        answer = process.ask({"batch": batch, "seconds": seconds})
    return Ran(answer["rate"], np.array(answer["vectors"], np.float32))
