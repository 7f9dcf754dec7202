"""Training on the GPU in half precision."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from models.registry import build
from tests.drawing import write_people
from training.checkpoint import load_trained
from training.config import TrainingConfig
from training.trainer import train


@pytest.fixture(autouse=True)
def cuda() -> None:
    if not torch.cuda.is_available():
        pytest.skip("PyTorch finds no CUDA device")


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_run_in_half_precision_stays_finite_and_resumes(tmp_path: Path, precision: str) -> None:
    write_people(tmp_path / "crops", range(8), images=4, size=(64, 32))
    config = {
        "backbone": "test_resnet",
        "data": [{"kind": "folder", "root": str(tmp_path / "crops"), "name": "drawn"}],
        "input": {"height": 64, "width": 32},
        "batch": {"identities": 4, "images": 2},
        "schedule": {"kind": "cosine", "warmup_epochs": 0},
        "epochs": 2,
        "precision": precision,
        "validation": {"share": 0},
    }
    result = train(TrainingConfig.model_validate(config), tmp_path / "run")
    state = load_trained(result).network.state_dict()
    assert all(torch.isfinite(tensor).all() for tensor in state.values() if tensor.is_floating_point())
    train(TrainingConfig.model_validate(config), tmp_path / "run", resume=True)


def test_network_embeds_the_same_on_cpu_and_gpu() -> None:
    network = build("baseline", "tf_efficientnet_lite0", 4, "imagenet").eval()
    images = torch.randint(0, 256, (8, 128, 64, 3), dtype=torch.uint8)
    modality = torch.arange(8) % 2
    with torch.inference_mode():
        here = network.embed(images, modality)
        there = network.cuda().embed(images.cuda(), modality.cuda()).cpu()
    assert float((here * there).sum(1).min()) > 0.9999
