"""Inference on the GPU compared with the CPU."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from models.card import Precision
from server.embedding.providers import CUDA, GPU_BATCHES, TENSORRT, Gpu
from server.embedding.session import ModelRefused, OnnxEmbedder
from server.hardware import cuda
from server.hardware.cuda import page_locked
from tests.server.stub_model import HEIGHT, WIDTH, write_model


@pytest.fixture(autouse=True)
def cuda_build() -> None:
    if CUDA not in onnxruntime.get_available_providers():
        pytest.skip("this environment has onnxruntime for the CPU: `make EXTRA=gpu serve` installs the other")


def needs_tensorrt() -> None:
    if TENSORRT not in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime was built without TensorRT")
    try:
        ctypes.CDLL("libnvinfer.so.10")
    except OSError as error:
        pytest.skip(f"TensorRT 10 is not installed: {error}")


def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield batches of every GPU batch size, the largest first, then sizes that need padding, with different crops."""
    rng = np.random.default_rng(0)
    for count in (*reversed(GPU_BATCHES), 63, 33, 17, 5, 3, 1, 64):
        yield rng.integers(0, 256, (count, HEIGHT, WIDTH, 3), dtype=np.uint8), rng.integers(0, 2, count)


def agrees_with_the_cpu(gpu: OnnxEmbedder, directory: Path) -> None:
    cpu = OnnxEmbedder(directory, Precision.FP32, "cpu", 1)
    for images, modalities in batches():
        here = np.concatenate([cpu.embed(images[i : i + 1], modalities[i : i + 1]) for i in range(len(images))])
        np.testing.assert_allclose(gpu.embed(images, modalities), here, atol=2e-3)


def test_cuda_runs_the_session_and_agrees_with_the_cpu(tmp_path: Path) -> None:
    write_model(tmp_path / "stub")
    gpu = OnnxEmbedder(tmp_path / "stub", Precision.FP32, "cuda", gpu=Gpu(memory=2**30))
    assert gpu.provider == CUDA
    agrees_with_the_cpu(gpu, tmp_path / "stub")


def test_page_locked_inputs_yield_the_same_embeddings(tmp_path: Path) -> None:
    write_model(tmp_path / "stub")
    gpu = OnnxEmbedder(tmp_path / "stub", Precision.FP32, "cuda")
    for images, modalities in batches():
        (plain,) = gpu._session.run(["embedding"], {"image": images, "modality": modalities})
        np.testing.assert_allclose(gpu.embed(list(images), modalities), plain, atol=1e-5)


def test_page_locked_memory_is_registered_with_the_driver() -> None:
    flags, place, other = ctypes.c_uint(), page_locked(0, (3, 5), np.int64), np.zeros(15, np.int64)
    with cuda._current(0):
        cuda._call("cuMemHostGetFlags", ctypes.byref(flags), ctypes.c_void_p(place.ctypes.data))
        with pytest.raises(RuntimeError, match="rejected cuMemHostGetFlags"):
            cuda._call("cuMemHostGetFlags", ctypes.byref(flags), ctypes.c_void_p(other.ctypes.data))


@pytest.mark.parametrize("device", ["cuda", "tensorrt"])
def test_cuda_graphs_use_inputs_set_after_capture(tmp_path: Path, device: str) -> None:
    if device == "tensorrt":
        needs_tensorrt()
    write_model(tmp_path / "stub")
    graphs = OnnxEmbedder(tmp_path / "stub", Precision.FP32, device, gpu=Gpu(graphs=True))
    assert graphs.provider == (CUDA if device == "cuda" else TENSORRT)
    agrees_with_the_cpu(graphs, tmp_path / "stub")


def test_tensorrt_runs_the_session_and_caches_its_engines(tmp_path: Path) -> None:
    needs_tensorrt()
    write_model(tmp_path / "stub")
    gpu = OnnxEmbedder(tmp_path / "stub", Precision.FP32, "tensorrt", gpu=Gpu(engines=tmp_path / "engines"))
    assert gpu.provider == TENSORRT
    agrees_with_the_cpu(gpu, tmp_path / "stub")
    assert list((tmp_path / "engines").rglob("*.engine"))


def test_missing_gpu_number_is_refused(tmp_path: Path) -> None:
    write_model(tmp_path / "stub")
    with pytest.raises(ModelRefused):
        OnnxEmbedder(tmp_path / "stub", Precision.FP32, "cuda:99")
