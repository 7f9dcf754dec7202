"""The learning rate at every boundary, and which parameters get it."""

from __future__ import annotations

import pytest
from torch import nn

from models.registry import build
from training.optimisation import AdamW, Cosine, Sgd, Steps, build_optimiser, learning_rate_factor, set_learning_rate

PER_EPOCH = 7


@pytest.mark.parametrize("within", [0, PER_EPOCH - 1], ids=["first step", "last step"])
@pytest.mark.parametrize(
    ("epoch", "factor"),
    [(0, 0.1), (1, 0.2), (8, 0.9), (9, 1), (10, 1), (19, 1), (20, 0.1), (49, 0.1), (50, 0.01), (80, 0.01)],
)
def test_the_step_schedule_is_the_usual_one(epoch: int, factor: float, within: int) -> None:
    found = learning_rate_factor(Steps(), epoch * PER_EPOCH + within, PER_EPOCH, 81)
    assert found == pytest.approx(factor)


def test_every_milestone_takes_effect() -> None:
    schedule = Steps(warmup_epochs=0, milestones=(80, 120), gamma=0.1)
    factors = [learning_rate_factor(schedule, epoch, 1, 151) for epoch in (0, 79, 80, 119, 120, 150)]
    assert factors == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


@pytest.mark.parametrize(
    ("step", "factor"),
    [(0, 1 / 21), (10, 11 / 21), (20, 1), (21 + 34, 0.505), (21 + 69, 0.01)],
    ids=["first", "warm-up", "peak", "half", "last"],
)
def test_cosine_rises_and_falls_step_by_step(step: int, factor: float) -> None:
    schedule = Cosine(warmup_epochs=3, floor=0.01)
    assert learning_rate_factor(schedule, step, PER_EPOCH, 13) == pytest.approx(factor, abs=1e-3)


def test_cosine_never_rises_after_its_peak() -> None:
    schedule = Cosine(warmup_epochs=1)
    factors = [learning_rate_factor(schedule, step, PER_EPOCH, 5) for step in range(PER_EPOCH - 1, 5 * PER_EPOCH)]
    assert factors == sorted(factors, reverse=True)
    assert min(factors) > 0


@pytest.mark.parametrize("config", [Sgd(), AdamW()], ids=lambda config: config.kind)
def test_every_trainable_parameter_is_in_one_group_with_its_own_rate(config: Sgd | AdamW) -> None:
    network = build("baseline", "test_resnet", 5)
    optimiser = build_optimiser(config, network)
    set_learning_rate(optimiser, 0.5)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    slow, fast = ([names[id(p)] for p in group["params"]] for group in optimiser.param_groups)
    assert sorted(slow + fast) == sorted(n for n, p in network.named_parameters() if p.requires_grad)
    assert all(name.startswith("trunk.") for name in slow)
    assert not any(name.startswith("trunk.") for name in fast)
    rates = [group["lr"] for group in optimiser.param_groups]
    assert rates == pytest.approx([0.5 * config.learning_rate * config.pretrained_factor, 0.5 * config.learning_rate])
    assert isinstance(network.neck, nn.BatchNorm1d)
    assert "neck.bias" not in fast
