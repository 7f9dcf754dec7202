"""The baseline's contrast between embeddings of the two modalities, and retention."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from models.baseline import Output
from training.data.dataset import Batch
from training.losses import Retention
from training.methods import build_method

IDENTITIES = torch.tensor([4, 7, 4, 9, 7, 9, 4])
MODALITIES = torch.tensor([0, 1, 1, 0, 0, 1, 0])


def batch() -> Batch:
    images = torch.zeros(7, 8, 4, 3, dtype=torch.uint8)
    return Batch(images, IDENTITIES, MODALITIES, MODALITIES, torch.full((7,), -1))


def output() -> Output:
    generator = torch.Generator().manual_seed(0)
    pooled, embedding, logits = (torch.randn(7, n, generator=generator, dtype=torch.float64) for n in (5, 5, 10))
    return Output(pooled, embedding, logits)


def test_without_contrast_the_terms_are_the_published_ones() -> None:
    method = build_method("baseline", {})
    assert list(method(output(), batch())) == ["id", "wrt"]
    assert method.weights(0) == {}
    half = build_method("baseline", {"identity_weight": 0, "triplet_weight": 0.5})
    assert list(half(output(), batch())) == ["wrt"]
    assert half.weights(0) == {"wrt": 0.5}


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_the_contrast_is_infonce_of_the_embeddings_in_both_directions(temperature: float) -> None:
    method = build_method("baseline", {"contrast_weight": 0.5, "contrast_temperature": temperature})
    found = method(output(), batch())["contrast"]
    unit = output().embedding.numpy()
    unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
    sides = []
    for own in (0, 1):
        anchors = []
        for a in np.flatnonzero(own == MODALITIES):
            others = np.flatnonzero(own != MODALITIES)
            weights = np.exp(unit[others] @ unit[a] / temperature)
            positive = IDENTITIES.numpy()[others] == int(IDENTITIES[a])
            anchors.append(-np.log(weights[positive] / weights.sum()).mean())
        sides.append(np.mean(anchors))
    assert float(found) == pytest.approx(np.mean(sides))
    assert method.weights(3.5)["contrast"] == 0.5


@pytest.mark.parametrize("name", ["baseline", "mtrl", "icre", "emi"])
def test_every_method_has_the_contrast(name: str) -> None:
    assert build_method(name, {"contrast_weight": 0.25}).weights(100)["contrast"] == 0.25
    assert "contrast" not in build_method(name, {}).weights(100)


def test_retention_compares_embeddings_with_those_of_the_start() -> None:
    method = build_method("baseline", {"retention_weight": 2.0, "identity_weight": 0, "triplet_weight": 0})
    assert method.needs_targets
    targets = torch.zeros(7, 5)
    targets[0], targets[3] = output().embedding[0] * 3, -output().embedding[3]
    terms = method(output(), replace(batch(), targets=targets))
    assert list(terms) == ["retention"]
    assert float(terms["retention"]) == pytest.approx((0 + 2) / 2)
    assert method.weights(0) == {"retention": 2.0}


def test_without_a_target_retention_is_zero_and_connected_to_the_graph() -> None:
    embeddings = torch.randn(3, 4, requires_grad=True)
    loss = Retention()(embeddings, torch.zeros(3, 4))
    loss.backward()
    assert loss.item() == 0
    assert embeddings.grad is not None
    assert not embeddings.grad.any()
