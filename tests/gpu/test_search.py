"""FAISS on a real GPU compared with brute force, with filters."""

from __future__ import annotations

from functools import partial

import faiss
import numpy as np
import pytest

from server.domain.types import VectorType
from server.index import gpu as module
from server.index.gpu import FaissDevice, GpuIndex, GpuWorker, choose_index
from server.index.protocol import BruteForceIndex
from tests.server.gallery.builders import unit_vectors


@pytest.fixture(autouse=True)
def gpu_build() -> None:
    if not hasattr(faiss, "StandardGpuResources"):
        pytest.skip("this environment has faiss for the CPU: `make EXTRA=gpu serve` installs the other")


def test_every_gpu_passes_the_filter_check() -> None:
    assert isinstance(choose_index("cuda")(64, VectorType.FLOAT16), GpuIndex)


@pytest.mark.parametrize("part", [2**16, 7000])  # all at once, and several with a smaller last one
@pytest.mark.parametrize("share", [1.0, 0.5, 0.01, 0.0])
def test_gpu_search_equals_brute_force(monkeypatch: pytest.MonkeyPatch, share: float, part: int) -> None:
    monkeypatch.setattr(module, "_COPY_ROWS", part)
    gpu, oracle = GpuWorker(partial(FaissDevice, 0)), BruteForceIndex(512, VectorType.FLOAT16)
    index = GpuIndex([gpu], 512, VectorType.FLOAT16, rows=20_000)
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


def test_dropped_index_frees_its_gpu_memory() -> None:
    gpu = GpuWorker(partial(FaissDevice, 0))

    def filled(rows: int) -> GpuIndex:
        index = GpuIndex([gpu], 512, VectorType.FLOAT16, rows=rows)
        index.add(unit_vectors(rows, 512))
        index.search(unit_vectors(1, 512), 10)
        gpu.tidy()
        return index

    filled(1000)  # allocates what FAISS needs only once
    gpu.tidy()
    before = gpu.free()
    index = filled(200_000)
    assert before - gpu.free() >= 200_000 * 512 * 2
    del index
    gpu.tidy()
    assert before - gpu.free() < 2**26
