"""A fused network: its members' vectors side by side, each with its weight."""

from __future__ import annotations

import math

import pytest
import torch

from models.fused import Fused
from models.registry import build


def crops(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 64, 32, 3), dtype=torch.uint8, generator=generator)
    return images, torch.arange(count) % 2


def test_a_fused_vector_is_the_scaled_concatenation_at_unit_length() -> None:
    torch.manual_seed(0)
    networks = [build(method, "test_resnet", 3).eval() for method in ("baseline", "emi", "icre")]
    fused = Fused(networks, [1.0, 2.0, 0.5]).eval()
    assert fused.dimension == sum(network.dimension for network in networks)
    assert fused.inference_parameters() == sum(network.inference_parameters() for network in networks)
    with torch.inference_mode():
        parts = [network.embed(*crops(4)) for network in networks]
        found = fused.embed(*crops(4))
    expected = torch.cat([parts[0], 2 * parts[1], 0.5 * parts[2]], 1) / math.sqrt(1 + 4 + 0.25)
    torch.testing.assert_close(found, expected)
    cosines = [part @ part.T for part in parts]
    torch.testing.assert_close(found @ found.T, (cosines[0] + 4 * cosines[1] + 0.25 * cosines[2]) / 5.25)


@pytest.mark.parametrize("weights", [[1.0], [1.0, 0.0], [1.0, -1.0], [1.0, math.nan], [1.0, math.inf], [1.0, 1.0, 1.0]])
def test_weights_that_do_not_fit_are_rejected(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="weight above 0"):
        Fused([build("baseline", "test_resnet", 3) for _ in range(2)], weights)


def test_one_network_is_no_fusion() -> None:
    with pytest.raises(ValueError, match="at least two"):
        Fused([build("baseline", "test_resnet", 3)], [1.0])
