"""Pooling and neck."""

from __future__ import annotations

import pytest
import torch

from models.heads import BNNeck, GeM, classifier


def test_gem_equals_its_definition_in_loops() -> None:
    x = torch.rand(2, 3, 4, 5, dtype=torch.float64).float()
    expected = [[(sum(max(float(v), 1e-6) ** 3 for v in c.flatten()) / 20) ** (1 / 3) for c in n] for n in x]
    torch.testing.assert_close(GeM()(x), torch.tensor(expected), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("fill", [-3.0, 0.0])
def test_gem_stays_finite_with_gradients_on_signed_and_empty_maps(fill: float) -> None:
    x = torch.full((2, 3, 4, 4), fill, requires_grad=True)
    GeM()(x).sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


def test_gem_pools_in_float32_under_half_precision() -> None:
    assert GeM()(torch.full((1, 2, 2, 2), 300.0, dtype=torch.float16)).dtype is torch.float32
    assert torch.isfinite(GeM()(torch.full((1, 2, 2, 2), 300.0, dtype=torch.float16))).all()


def test_the_necks_bias_never_learns() -> None:
    neck = BNNeck(8)
    assert not neck.bias.requires_grad
    assert not neck.bias.any()
    assert abs(float(neck.weight.detach().mean()) - 1) < 0.05


def test_the_classifier_has_no_bias_and_starts_small() -> None:
    layer = classifier(1000, 50)
    assert layer.bias is None
    assert float(layer.weight.detach().std()) == pytest.approx(0.001, rel=0.05)
