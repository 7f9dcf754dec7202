"""The engine benchmark: reported rates and vectors, and engines that do not start."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from benchmarks import engines
from benchmarks.harness import peers
from benchmarks.harness.effort import BenchmarkResult, Effort
from benchmarks.harness.session import RawSession
from models.card import Precision
from models.cores import usable_cores
from tests.server.stub_model import write_model

SHORT = Effort(quick=True, rounds=2, seconds=0.01)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_model(tmp_path / "stub")
    return tmp_path / "stub"


class Twin:
    """A fake engine that reports a rate a million times as high."""

    def __init__(self, session: RawSession) -> None:
        self._session = session

    def running(self) -> Any:
        return nullcontext()

    def call(self, request: dict[str, Any]) -> dict[str, Any]:
        rate = 1e6 * self._session.rate_of(request["callers"], request["batch"], request["seconds"])
        return {"rate": rate, "vectors": self._session.run(request["batch"]).tolist()}


def test_engine_table_has_rates_and_cosines_of_every_engine(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    @contextmanager
    def openvino(file: Path, precision: str) -> Iterator[Twin]:
        assert (file.exists(), precision in ("f32", "bf16")) == (True, True)
        yield Twin(RawSession(folder, Precision.FP32))

    monkeypatch.setattr(peers, "openvino", openvino)
    result = BenchmarkResult()
    engines.measure_model(SHORT, result, "stub", folder)
    rows = result.tables["stub"]
    assert {(row["engine"], row["callers"], row["batch"]) for row in rows} == {
        (engine, callers, batch)
        for engine in ("ONNX Runtime, fp32", "OpenVINO, fp32", "OpenVINO, bf16")
        for callers, batch in ((1, 1), (usable_cores(), 4))
    }
    assert all(row["smallest cosine with fp32"] == 1 for row in rows)
    assert [figure.name for figure in result.figures] == [  # it has no int8
        "stub, a crop alone: ONNX Runtime, fp32 / OpenVINO, fp32",
        "stub, a thread a core: ONNX Runtime, fp32 / OpenVINO, fp32",
    ]
    assert all(0 < figure.value < 1e-3 and not figure.kept for figure in result.figures)
    assert not result.missing


def test_engine_that_does_not_start_is_reported_as_missing(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr(peers, "PYTHON", f"{sys.base_prefix}/bin/python3")  # an environment without it
    result = BenchmarkResult()
    engines.measure_model(SHORT, result, "stub", folder)
    assert {row["engine"] for row in result.tables["stub"]} == {"ONNX Runtime, fp32"}
    assert not result.figures
    assert [text.partition(":")[0] for text in result.missing] == [
        "OpenVINO, fp32 over stub",
        "OpenVINO, bf16 over stub",
    ]
    assert all("No module named 'openvino'" in text for text in result.missing)
