"""The GPU serves what the CPU serves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from models.card import Precision
from server.embedding.session import CUDA, OnnxEmbedder
from tests.server.standin import HEIGHT, WIDTH, write_model


@pytest.fixture(autouse=True)
def cuda_build() -> None:
    if CUDA not in onnxruntime.get_available_providers():
        pytest.skip("this environment has onnxruntime for the CPU: `make EXTRA=gpu serve` installs the other")


def test_cuda_is_what_really_runs_and_agrees_with_the_cpu(tmp_path: Path) -> None:
    write_model(tmp_path / "standin")
    gpu, cpu = (OnnxEmbedder(tmp_path / "standin", Precision.FP32, device, 1) for device in ("cuda", "cpu"))
    assert gpu.provider == CUDA
    rng = np.random.default_rng(0)
    for count in (1, 3, 16, gpu.largest_batch):
        images = rng.integers(0, 256, (count, HEIGHT, WIDTH, 3), dtype=np.uint8)
        modalities = rng.integers(0, 2, count)
        here = np.concatenate([cpu.embed(images[i : i + 1], modalities[i : i + 1]) for i in range(count)])
        np.testing.assert_allclose(gpu.embed(images, modalities), here, atol=2e-3)
