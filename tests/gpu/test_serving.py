"""The GPU serves what the CPU serves."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from models.card import Precision
from server.embedding.providers import CUDA, TENSORRT, Gpu
from server.embedding.session import ModelRefused, OnnxEmbedder
from tests.server.standin import HEIGHT, WIDTH, write_model


@pytest.fixture(autouse=True)
def cuda_build() -> None:
    if CUDA not in onnxruntime.get_available_providers():
        pytest.skip("this environment has onnxruntime for the CPU: `make EXTRA=gpu serve` installs the other")


def agrees_with_the_cpu(gpu: OnnxEmbedder, directory: Path) -> None:
    cpu = OnnxEmbedder(directory, Precision.FP32, "cpu", 1)
    rng = np.random.default_rng(0)
    for count in (1, 3, 16, gpu.largest_batch):
        images = rng.integers(0, 256, (count, HEIGHT, WIDTH, 3), dtype=np.uint8)
        modalities = rng.integers(0, 2, count)
        here = np.concatenate([cpu.embed(images[i : i + 1], modalities[i : i + 1]) for i in range(count)])
        np.testing.assert_allclose(gpu.embed(images, modalities), here, atol=2e-3)


def test_cuda_is_what_really_runs_and_agrees_with_the_cpu(tmp_path: Path) -> None:
    write_model(tmp_path / "standin")
    gpu = OnnxEmbedder(tmp_path / "standin", Precision.FP32, "cuda", gpu=Gpu(memory=2**30))
    assert gpu.provider == CUDA
    agrees_with_the_cpu(gpu, tmp_path / "standin")


def test_tensorrt_is_what_really_runs_and_keeps_its_engines(tmp_path: Path) -> None:
    if TENSORRT not in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime was built without TensorRT")
    try:
        ctypes.CDLL("libnvinfer.so.10")
    except OSError as error:
        pytest.skip(f"TensorRT 10 is not installed: {error}")
    write_model(tmp_path / "standin")
    gpu = OnnxEmbedder(tmp_path / "standin", Precision.FP32, "tensorrt", gpu=Gpu(engines=tmp_path / "engines"))
    assert gpu.provider == TENSORRT
    agrees_with_the_cpu(gpu, tmp_path / "standin")
    assert list((tmp_path / "engines").rglob("*.engine"))


def test_a_gpu_that_is_not_there_is_refused_by_its_number(tmp_path: Path) -> None:
    write_model(tmp_path / "standin")
    with pytest.raises(ModelRefused):
        OnnxEmbedder(tmp_path / "standin", Precision.FP32, "cuda:99")
