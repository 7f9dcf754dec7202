"""The programs that users would pick instead, in an environment of their own that ``make bench`` makes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from benchmarks.harness.machine import ROOT
from benchmarks.harness.process import Process, free_port, started
from server.embedding.cores import usable_cores

__all__ = ["PYTHON", "bentoml", "litserve", "openvino"]

PYTHON = ROOT / ".venv-bench" / "bin" / "python"


@contextmanager
def litserve(model: Path, form: Literal["json", "bytes"]) -> Iterator[tuple[str, Process]]:
    """LitServe over an ONNX file: the address that takes a crop in JSON, or the bytes of its file as body."""
    port = free_port()
    words = [PYTHON, "-m", "benchmarks.peers.litserve_server", model, str(port), str(usable_cores()), form]
    with TemporaryDirectory() as scratch, started(words, Path(scratch) / "log", {"PYTHONPATH": str(ROOT)}) as process:
        process.until_answers(f"http://127.0.0.1:{port}/health")
        yield f"http://127.0.0.1:{port}/predict", process


@contextmanager
def bentoml(model: Path) -> Iterator[tuple[str, Process]]:
    """BentoML over an ONNX file: the address that takes a form with files ``images``."""
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
            process.until_answers(f"http://127.0.0.1:{port}/readyz")
            yield f"http://127.0.0.1:{port}/embed", process


@contextmanager
def openvino(model: Path, precision: Literal["f32", "bf16"]) -> Iterator[Process]:
    """OpenVINO over an ONNX file, standing still; see :mod:`benchmarks.peers.openvino_engine`.

    Raises:
        RuntimeError: it does not start.
    """
    words = [PYTHON, "-m", "benchmarks.peers.openvino_engine", model, precision, str(usable_cores())]
    environment = {"PYTHONPATH": str(ROOT)}
    with TemporaryDirectory() as scratch, started(words, Path(scratch) / "log", environment, talks=True) as process:
        process.hear()
        process.pause()
        yield process
