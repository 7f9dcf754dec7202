"""Nothing is added at inference: MTRL's network is the baseline's."""

from __future__ import annotations

import pytest
import torch

from models.baseline import Baseline
from models.mtrl import Mtrl


@pytest.mark.parametrize("backbone", ["resnet50", "efficientnet_lite0"])
def test_the_network_has_the_parameters_and_the_computation_of_the_baseline(backbone: str) -> None:
    networks = []
    for kind in (Baseline, Mtrl):
        torch.manual_seed(0)
        networks.append(kind(backbone, 3).eval())
    baseline, mtrl = networks
    assert mtrl.inference_parameters() == baseline.inference_parameters()
    assert {k: v.shape for k, v in mtrl.state_dict().items()} == {k: v.shape for k, v in baseline.state_dict().items()}
    images = torch.randint(0, 256, (4, 96, 48, 3), dtype=torch.uint8)
    with torch.inference_mode():
        found, expected = (network.embed(images, torch.tensor([0, 1, 1, 0])) for network in (mtrl, baseline))
    assert torch.equal(found, expected)
