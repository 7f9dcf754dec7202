"""The baseline network and its registry, over every method and backbone family."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch

from models.registry import METHODS, build


def batch(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(count)
    images = torch.randint(0, 256, (count, 96, 48, 3), dtype=torch.uint8, generator=generator)
    return images, torch.arange(count) % 2


@pytest.mark.parametrize("method", sorted(METHODS))
@pytest.mark.parametrize("backbone", ["resnet18", "efficientnet_lite0"])
def test_every_network_takes_a_training_step_and_learns_everywhere(method: str, backbone: str) -> None:
    network = build(method, backbone, identities=3).train()
    output = network(*batch(4))
    assert output.pooled.shape == output.embedding.shape == (4, network.dimension)
    assert output.logits.shape == (4, 3)
    torch.stack([getattr(output, part.name).square().sum() for part in fields(output)]).sum().backward()
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name


@pytest.mark.parametrize("method", sorted(METHODS))
def test_an_embedding_has_unit_length_and_depends_only_on_its_own_crop(method: str) -> None:
    network = build(method, "efficientnet_lite0", identities=3).eval()
    images, modality = batch(5)
    with torch.inference_mode():
        together = network.embed(images, modality)
        single = torch.cat([network.embed(images[i : i + 1], modality[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(together.norm(dim=1), torch.ones(5))
    torch.testing.assert_close(together, single, rtol=1e-4, atol=1e-5)


def test_both_parameter_groups_together_hold_every_trainable_parameter_once() -> None:
    network = build("baseline", "resnet18", identities=3)
    grouped = [id(p) for group in (network.pretrained_parameters(), network.new_parameters()) for p in group]
    assert sorted(grouped) == sorted(id(p) for p in network.parameters() if p.requires_grad)


def test_the_error_for_an_unknown_method_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="baseline"):
        build("nothing", "resnet18", 3)
