"""The GPU serves what the CPU serves."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from models.card import Precision
from server import cuda
from server.cuda import page_locked
from server.embedding.providers import CUDA, GPU_BATCHES, TENSORRT, Gpu
from server.embedding.session import ModelRefused, OnnxEmbedder
from tests.server.standin import HEIGHT, WIDTH, write_model


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
    """Every size that is run, the largest first and what is padded after it, each with crops of its own."""
    rng = np.random.default_rng(0)
    for count in (*reversed(GPU_BATCHES), 63, 33, 17, 5, 3, 1, 64):
        yield rng.integers(0, 256, (count, HEIGHT, WIDTH, 3), dtype=np.uint8), rng.integers(0, 2, count)


def agrees_with_the_cpu(gpu: OnnxEmbedder, directory: Path) -> None:
    cpu = OnnxEmbedder(directory, Precision.FP32, "cpu", 1)
    for images, modalities in batches():
        here = np.concatenate([cpu.embed(images[i : i + 1], modalities[i : i + 1]) for i in range(len(images))])
        np.testing.assert_allclose(gpu.embed(images, modalities), here, atol=2e-3)


def test_cuda_is_what_really_runs_and_agrees_with_the_cpu(tmp_path: Path) -> None:
    write_model(tmp_path / "standin")
    gpu = OnnxEmbedder(tmp_path / "standin", Precision.FP32, "cuda", gpu=Gpu(memory=2**30))
    assert gpu.provider == CUDA
    agrees_with_the_cpu(gpu, tmp_path / "standin")


def test_what_is_sent_from_page_locked_memory_is_what_a_session_copies_itself(tmp_path: Path) -> None:
    write_model(tmp_path / "standin")
    gpu = OnnxEmbedder(tmp_path / "standin", Precision.FP32, "cuda")
    for images, modalities in batches():
        (plain,) = gpu._session.run(["embedding"], {"image": images, "modality": modalities})
        np.testing.assert_allclose(gpu.embed(list(images), modalities), plain, atol=1e-5)


def test_page_locked_memory_is_the_drivers_own_and_other_is_not() -> None:
    flags, place, other = ctypes.c_uint(), page_locked(0, (3, 5), np.int64), np.zeros(15, np.int64)
    with cuda._current(0):
        cuda._call("cuMemHostGetFlags", ctypes.byref(flags), ctypes.c_void_p(place.ctypes.data))
        with pytest.raises(RuntimeError, match="refuses cuMemHostGetFlags"):
            cuda._call("cuMemHostGetFlags", ctypes.byref(flags), ctypes.c_void_p(other.ctypes.data))


@pytest.mark.parametrize("device", ["cuda", "tensorrt"])
def test_cuda_graphs_compute_what_came_after_their_capture(tmp_path: Path, device: str) -> None:
    if device == "tensorrt":
        needs_tensorrt()
    write_model(tmp_path / "standin")
    graphs = OnnxEmbedder(tmp_path / "standin", Precision.FP32, device, gpu=Gpu(graphs=True))
    assert graphs.provider == (CUDA if device == "cuda" else TENSORRT)
    agrees_with_the_cpu(graphs, tmp_path / "standin")


def test_tensorrt_is_what_really_runs_and_keeps_its_engines(tmp_path: Path) -> None:
    needs_tensorrt()
    write_model(tmp_path / "standin")
    gpu = OnnxEmbedder(tmp_path / "standin", Precision.FP32, "tensorrt", gpu=Gpu(engines=tmp_path / "engines"))
    assert gpu.provider == TENSORRT
    agrees_with_the_cpu(gpu, tmp_path / "standin")
    assert list((tmp_path / "engines").rglob("*.engine"))


def test_a_gpu_that_is_not_there_is_refused_by_its_number(tmp_path: Path) -> None:
    write_model(tmp_path / "standin")
    with pytest.raises(ModelRefused):
        OnnxEmbedder(tmp_path / "standin", Precision.FP32, "cuda:99")
