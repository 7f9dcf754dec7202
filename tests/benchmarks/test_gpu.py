"""What is measured on a GPU, run on the CPU."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import faiss
import numpy as np
import pytest

from benchmarks import gpu
from benchmarks.harness import searcher
from benchmarks.harness.effort import Effort, Found
from benchmarks.harness.product import ProductDevice
from models.card import Precision
from server.embedding.providers import CPU
from server.embedding.session import OnnxEmbedder
from server.gallery.gpu import Gpu, GpuFlat
from server.gallery.index import BruteForce, check_filter
from tests.server.gallery.making import unit_vectors
from tests.server.standin import write_model

SHORT = Effort(quick=True, rounds=2, seconds=0.01)
ON_CPU = partial(ProductDevice, CPU, "cpu", np.float32)


@pytest.mark.parametrize("share", [1.0, 0.1, 0.0])
def test_the_graph_finds_what_brute_force_finds(share: float) -> None:
    index, oracle = GpuFlat([Gpu(ON_CPU)], 32, rows=500), BruteForce(32)
    vectors, queries = unit_vectors(1700, 32), unit_vectors(5, 32, seed=1)
    index.add(vectors)
    oracle.add(vectors)
    allowed = np.random.default_rng(0).random(1700) < share
    scores, rows = index.search(queries, 10, allowed)
    expected, places = oracle.search(queries, 10, allowed)
    assert index.on_gpu
    np.testing.assert_allclose(scores, expected, rtol=0, atol=index.error + oracle.error)
    np.testing.assert_array_equal(rows, places)


def test_the_graph_filters_as_an_index_must() -> None:
    check_filter(lambda dimension, kind: GpuFlat([Gpu(ON_CPU)], dimension, kind, rows=64))


def test_searches_are_compared_case_by_case(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(searcher, "CACHE", tmp_path)
    found = Found()
    gpu.compare_search(SHORT, found, {"one": ON_CPU, "other": ON_CPU}, 2000, 32)
    (rows,) = found.tables.values()
    assert {(row["by"], row["queries"], row["filtered out"]) for row in rows} == {
        (name, queries, filtered) for name in ("one", "other") for queries in (1, 16, 64) for filtered in gpu.SHARES
    }
    assert all(row["ms"] > 0 for row in rows)
    assert not found.missing


def test_a_models_speed_is_measured_and_a_device_that_is_not_there_is_said(tmp_path: Path) -> None:
    write_model(tmp_path / "standin")
    found = Found()
    gpu.measure_model(SHORT, found, tmp_path / "standin", "cpu", Precision.FP32)
    (figure,) = found.figures
    assert figure.name == "standin, fp32, cpu: bare session, crops/s"
    assert figure.value > 0
    (rows,) = found.tables.values()
    assert [(row["launched"], row["batch"]) for row in rows] == [
        (way, batch) for way in gpu.LAUNCHES for batch in (1, 8)
    ]
    assert not found.missing
    gpu.measure_model(SHORT, found, tmp_path / "standin", "cuda:99", Precision.FP32)
    assert found.missing[0].startswith("standin, fp32, cuda:99, layer by layer: ")
    assert len(found.tables) == len(found.figures) == 1


def test_a_cuda_graph_that_computes_something_else_is_not_measured(tmp_path: Path) -> None:
    for seed, name in enumerate(("standin", "other")):
        write_model(tmp_path / name, seed=seed)
    folders = iter(["standin", "other"])

    def load(**_: object) -> OnnxEmbedder:
        return OnnxEmbedder(tmp_path / next(folders), Precision.FP32, "cpu", 1)

    found = Found()
    assert list(gpu._launched(found, "standin", load)) == [gpu.SERVED]
    assert found.missing == ["standin, CUDA graph: its vectors are others"]


@pytest.mark.skipif(hasattr(faiss, "StandardGpuResources"), reason="this faiss is built for GPUs")
def test_without_a_gpu_it_says_so() -> None:
    found = gpu.measure(SHORT)
    assert (found.tables, found.figures) == ({}, [])
    assert found.missing == ["the whole of it: this environment has onnxruntime and faiss for the CPU"]
