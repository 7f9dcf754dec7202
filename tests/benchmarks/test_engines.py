"""Engines are compared by what they give, and one that cannot be started is named."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from benchmarks import engines
from benchmarks.harness import peers
from benchmarks.harness.effort import Effort, Found
from benchmarks.harness.session import RawSession
from models.card import Precision
from server.embedding.cores import usable_cores
from tests.server.standin import write_model

SHORT = Effort(quick=True, rounds=2, seconds=0.01)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_model(tmp_path / "standin")
    return tmp_path / "standin"


class Twin:
    """Answers as an engine would that is a million times as fast."""

    def __init__(self, session: RawSession) -> None:
        self._session = session

    def running(self) -> Any:
        return nullcontext()

    def ask(self, wish: dict[str, Any]) -> dict[str, Any]:
        rate = 1e6 * self._session.rate_of(wish["callers"], wish["batch"], wish["seconds"])
        return {"rate": rate, "vectors": self._session.run(wish["batch"]).tolist()}


def test_rates_and_vectors_stand_side_by_side(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    @contextmanager
    def openvino(file: Path, precision: str) -> Iterator[Twin]:
        assert (file.exists(), precision in ("f32", "bf16")) == (True, True)
        yield Twin(RawSession(folder, Precision.FP32))

    monkeypatch.setattr(peers, "openvino", openvino)
    found = Found()
    engines.measure_model(SHORT, found, "standin", folder)
    rows = found.tables["standin"]
    assert {(row["engine"], row["callers"], row["batch"]) for row in rows} == {
        (engine, callers, batch)
        for engine in ("ONNX Runtime, fp32", "OpenVINO, fp32", "OpenVINO, bf16")
        for callers, batch in ((1, 1), (usable_cores(), 4))
    }
    assert all(row["smallest cosine with fp32"] == 1 for row in rows)
    assert [figure.name for figure in found.figures] == [  # it has no int8
        "standin, a crop alone: ONNX Runtime, fp32 / OpenVINO, fp32",
        "standin, a thread a core: ONNX Runtime, fp32 / OpenVINO, fp32",
    ]
    assert all(0 < figure.value < 1e-3 and not figure.kept for figure in found.figures)
    assert not found.missing


def test_an_engine_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr(peers, "PYTHON", f"{sys.base_prefix}/bin/python3")  # an environment without it
    found = Found()
    engines.measure_model(SHORT, found, "standin", folder)
    assert {row["engine"] for row in found.tables["standin"]} == {"ONNX Runtime, fp32"}
    assert not found.figures
    assert [text.partition(":")[0] for text in found.missing] == [
        "OpenVINO, fp32 over standin",
        "OpenVINO, bf16 over standin",
    ]
    assert all("No module named 'openvino'" in text for text in found.missing)
