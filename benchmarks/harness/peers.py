"""Comparable programs, run in the separate environment that ``make bench`` creates."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from benchmarks.harness.machine import ROOT
from benchmarks.harness.process import Process, free_port, started
from models.cores import usable_cores

__all__ = ["PYTHON", "bentoml", "litserve", "openvino"]

PYTHON = ROOT / ".venv-bench" / "bin" / "python"


@contextmanager
def litserve(model: Path, form: Literal["json", "bytes"]) -> Iterator[tuple[str, Process]]:
    """Run LitServe with an ONNX file; yield the URL that accepts a crop as JSON or as the bytes of its file."""
    port = free_port()
    words = [PYTHON, "-m", "benchmarks.peers.litserve_server", model, str(port), str(usable_cores()), form]
    with TemporaryDirectory() as scratch, started(words, Path(scratch) / "log", {"PYTHONPATH": str(ROOT)}) as process:
        process.wait_until_ready(f"http://127.0.0.1:{port}/health")
        yield f"http://127.0.0.1:{port}/predict", process


@contextmanager
def bentoml(model: Path) -> Iterator[tuple[str, Process]]:
    """Run BentoML with an ONNX file; yield the URL that accepts a form with files ``images``."""
    port = free_port()
    words = [PYTHON, "-m", "bentoml", "serve", "benchmarks.peers.bentoml_service:Crops", "--port", str(port)]
    with TemporaryDirectory() as scratch:
        environment = {
            "PYTHONPATH": str(ROOT),
            "BENTOML_HOME": str(Path(scratch) / "home"),
            "BENTOML_DO_NOT_TRACK": "True",
            "BENCHMARK_MODEL": str(model),
            "BENCHMARK_CORES": str(usable_cores()),
        }
        with started([*words, "--host", "127.0.0.1"], Path(scratch) / "log", environment) as process:
            process.wait_until_ready(f"http://127.0.0.1:{port}/readyz")
            yield f"http://127.0.0.1:{port}/embed", process


@contextmanager
def openvino(model: Path, precision: Literal["f32", "bf16"]) -> Iterator[Process]:
    """Run OpenVINO with an ONNX file; yield its stopped process; see :mod:`benchmarks.peers.openvino_engine`.

    Raises:
        RuntimeError: it does not start.
    """
    words = [PYTHON, "-m", "benchmarks.peers.openvino_engine", model, precision, str(usable_cores())]
    environment = {"PYTHONPATH": str(ROOT)}
    with TemporaryDirectory() as scratch, started(words, Path(scratch) / "log", environment, piped=True) as process:
        process.receive()
        process.pause()
        yield process
