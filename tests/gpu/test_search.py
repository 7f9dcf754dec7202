"""FAISS on a real GPU searches as brute force does, filters included."""

from __future__ import annotations

from functools import partial

import faiss
import numpy as np
import pytest

from server.gallery import gpu as module
from server.gallery.gpu import FaissDevice, Gpu, GpuFlat, choose_index
from server.gallery.index import BruteForce
from server.gallery.types import VectorType
from tests.server.gallery.making import unit_vectors


@pytest.fixture(autouse=True)
def gpu_build() -> None:
    if not hasattr(faiss, "StandardGpuResources"):
        pytest.skip("this environment has faiss for the CPU: `make EXTRA=gpu serve` installs the other")


def test_every_gpu_passes_its_test() -> None:
    assert isinstance(choose_index("cuda")(64, VectorType.FLOAT16), GpuFlat)


@pytest.mark.parametrize("part", [2**16, 7000])  # all at once, and several with a smaller last one
@pytest.mark.parametrize("share", [1.0, 0.5, 0.01, 0.0])
def test_a_gpu_finds_what_brute_force_finds(monkeypatch: pytest.MonkeyPatch, share: float, part: int) -> None:
    monkeypatch.setattr(module, "_PART", part)
    gpu, oracle = Gpu(partial(FaissDevice, 0)), BruteForce(512, VectorType.FLOAT16)
    index = GpuFlat([gpu], 512, VectorType.FLOAT16, rows=20_000)
    vectors, queries = unit_vectors(50_000, 512), unit_vectors(20, 512, seed=1)
    index.add(vectors)
    oracle.add(vectors)
    assert index.on_gpu
    allowed = np.random.default_rng(0).random(50_000) < share
    for k in (1, 10, 2048):
        scores, rows = index.search(queries, k, allowed)
        expected, places = oracle.search(queries, k, allowed)
        np.testing.assert_allclose(scores, expected, rtol=0, atol=index.error + oracle.error)
        np.testing.assert_array_equal(rows < 0, places < 0)
        assert allowed[rows[rows >= 0]].all()
    assert index.on_gpu


def test_free_memory_is_told_and_given_back() -> None:
    gpu = Gpu(partial(FaissDevice, 0))

    def filled(rows: int) -> GpuFlat:
        index = GpuFlat([gpu], 512, VectorType.FLOAT16, rows=rows)
        index.add(unit_vectors(rows, 512))
        index.search(unit_vectors(1, 512), 10)
        gpu.tidy()
        return index

    filled(1000)  # what FAISS takes once
    gpu.tidy()
    before = gpu.free()
    index = filled(200_000)
    assert before - gpu.free() >= 200_000 * 512 * 2
    del index
    gpu.tidy()
    assert before - gpu.free() < 2**26
