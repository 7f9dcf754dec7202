"""The GPU benchmarks, run on the CPU."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import faiss
import numpy as np
import pytest

from benchmarks import gpu
from benchmarks.harness import searcher
from benchmarks.harness.effort import BenchmarkResult, Effort
from benchmarks.harness.product import ProductDevice
from models.card import Precision
from server.embedding.providers import CPU
from server.embedding.session import OnnxEmbedder
from server.index.gpu import GpuIndex, GpuWorker
from server.index.protocol import BruteForceIndex, check_filter
from tests.server.gallery.builders import unit_vectors
from tests.server.stub_model import write_model

SHORT = Effort(quick=True, rounds=2, seconds=0.01)
ON_CPU = partial(ProductDevice, CPU, "cpu", np.float32)


@pytest.mark.parametrize("share", [1.0, 0.1, 0.0])
def test_graph_search_equals_brute_force(share: float) -> None:
    index, oracle = GpuIndex([GpuWorker(ON_CPU)], 32, rows=500), BruteForceIndex(32)
    vectors, queries = unit_vectors(1700, 32), unit_vectors(5, 32, seed=1)
    index.add(vectors)
    oracle.add(vectors)
    allowed = np.random.default_rng(0).random(1700) < share
    scores, rows = index.search(queries, 10, allowed)
    expected, places = oracle.search(queries, 10, allowed)
    assert index.on_gpu
    np.testing.assert_allclose(scores, expected, rtol=0, atol=index.error + oracle.error)
    np.testing.assert_array_equal(rows, places)


def test_graph_search_passes_the_filter_check() -> None:
    check_filter(lambda dimension, kind: GpuIndex([GpuWorker(ON_CPU)], dimension, kind, rows=64))


def test_search_comparison_has_a_row_per_device_and_case(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(searcher, "CACHE", tmp_path)
    result = BenchmarkResult()
    gpu.compare_search(SHORT, result, {"one": ON_CPU, "other": ON_CPU}, 2000, 32)
    (rows,) = result.tables.values()
    assert {(row["by"], row["queries"], row["filtered out"]) for row in rows} == {
        (name, queries, filtered) for name in ("one", "other") for queries in (1, 16, 64) for filtered in gpu.SHARES
    }
    assert all(row["ms"] > 0 for row in rows)
    assert not result.missing


def test_model_speed_is_measured_and_a_missing_device_reported(tmp_path: Path) -> None:
    write_model(tmp_path / "stub")
    result = BenchmarkResult()
    gpu.measure_model(SHORT, result, tmp_path / "stub", "cpu", Precision.FP32)
    (figure,) = result.figures
    assert figure.name == "stub, fp32, cpu: bare session, crops/s"
    assert figure.value > 0
    (rows,) = result.tables.values()
    assert [(row["launched"], row["batch"]) for row in rows] == [
        (way, batch) for way in gpu.LAUNCHES for batch in (1, 8)
    ]
    assert not result.missing
    gpu.measure_model(SHORT, result, tmp_path / "stub", "cuda:99", Precision.FP32)
    assert result.missing[0].startswith("stub, fp32, cuda:99, layer by layer: ")
    assert len(result.tables) == len(result.figures) == 1


def test_cuda_graph_with_wrong_vectors_is_not_measured(tmp_path: Path) -> None:
    for seed, name in enumerate(("stub", "other")):
        write_model(tmp_path / name, seed=seed)
    folders = iter(["stub", "other"])

    def load(**_: object) -> OnnxEmbedder:
        return OnnxEmbedder(tmp_path / next(folders), Precision.FP32, "cpu", 1)

    result = BenchmarkResult()
    assert list(gpu._launched(result, "stub", load)) == [gpu.SERVED]
    assert result.missing == ["stub, CUDA graph: its vectors are others"]


@pytest.mark.skipif(hasattr(faiss, "StandardGpuResources"), reason="this faiss is built for GPUs")
def test_missing_gpu_is_reported() -> None:
    result = gpu.measure(SHORT)
    assert (result.tables, result.figures) == ({}, [])
    assert result.missing == ["the whole of it: this environment has onnxruntime and faiss for the CPU"]
