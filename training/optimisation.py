"""Optimisers with two parameter groups, and the learning rate as a pure function of the step."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, PositiveFloat, PositiveInt, Tag, model_validator

from models.baseline import Baseline
from training.config_base import ConfigPart, Fraction, NonNegative, kind_discriminator

__all__ = [
    "AdamW",
    "Cosine",
    "Optimiser",
    "Schedule",
    "Sgd",
    "Steps",
    "build_optimiser",
    "learning_rate_factor",
    "set_learning_rate",
]


class Sgd(ConfigPart):
    """Nesterov SGD, the usual optimiser for ResNet-50."""

    kind: Literal["sgd"] = "sgd"
    learning_rate: PositiveFloat = 0.1
    pretrained_factor: PositiveFloat = 0.1
    """Learning rate of pretrained parameters relative to that of new ones."""
    weight_decay: NonNegative = 5e-4
    momentum: Annotated[float, Field(gt=0, lt=1)] = 0.9


class AdamW(ConfigPart):
    """AdamW, for the small backbones."""

    kind: Literal["adamw"] = "adamw"
    learning_rate: PositiveFloat = 3.5e-4
    pretrained_factor: PositiveFloat = 0.5
    weight_decay: NonNegative = 1e-4


class Steps(ConfigPart):
    """Warm-up over the first epochs, then a decay by ``gamma`` at each milestone; constant within an epoch."""

    kind: Literal["steps"] = "steps"
    warmup_epochs: Annotated[int, Field(ge=0)] = 10
    milestones: tuple[PositiveInt, ...] = (20, 50)
    gamma: Annotated[float, Field(gt=0, lt=1)] = 0.1

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(f"milestones must rise, found {self.milestones}")
        return self


class Cosine(ConfigPart):
    """Linear warm-up over the first epochs, then a cosine decay to ``floor`` of the peak; updated at every step."""

    kind: Literal["cosine"] = "cosine"
    warmup_epochs: Annotated[int, Field(ge=0)] = 3
    floor: Fraction = 0.01


Optimiser = Annotated[Annotated[Sgd, Tag("sgd")] | Annotated[AdamW, Tag("adamw")], kind_discriminator("sgd")]
Schedule = Annotated[Annotated[Steps, Tag("steps")] | Annotated[Cosine, Tag("cosine")], kind_discriminator("steps")]


def build_optimiser(config: Sgd | AdamW, network: Baseline) -> torch.optim.Optimizer:
    """Build an optimiser with two groups: pretrained parameters at a reduced learning rate, new ones at the full one.

    Each group stores its peak learning rate under ``"peak"``.
    """
    slow = config.learning_rate * config.pretrained_factor
    groups = [
        {"params": list(network.pretrained_parameters()), "lr": slow, "peak": slow},
        {
            "params": list(network.new_parameters()),
            "lr": config.learning_rate,
            "peak": config.learning_rate,
        },
    ]
    if isinstance(config, AdamW):
        return torch.optim.AdamW(groups, weight_decay=config.weight_decay, fused=True)
    return torch.optim.SGD(
        groups, momentum=config.momentum, nesterov=True, weight_decay=config.weight_decay, fused=True
    )


def set_learning_rate(optimiser: torch.optim.Optimizer, factor: float) -> None:
    """Set the learning rate of every group to ``factor`` times its peak."""
    for group in optimiser.param_groups:
        group["lr"] = group["peak"] * factor


def learning_rate_factor(schedule: Steps | Cosine, step: int, steps_per_epoch: int, epochs: int) -> float:
    """Return the factor in (0, 1] of the peak learning rate at ``step``, counted from 0 over the whole run.

    With e the epoch (from 0), s = step + 1 and w the warm-up epochs:

        steps:   (e + 1) / w while e < w, then gamma ** (number of milestones <= e)
        cosine:  s / (w · steps_per_epoch) during the warm-up, then half a cosine period to ``floor`` at the last step
    """
    if isinstance(schedule, Steps):
        epoch = step // steps_per_epoch
        if epoch < schedule.warmup_epochs:
            return (epoch + 1) / schedule.warmup_epochs
        return schedule.gamma ** sum(milestone <= epoch for milestone in schedule.milestones)
    warmup, total = schedule.warmup_epochs * steps_per_epoch, epochs * steps_per_epoch
    if step < warmup:
        return (step + 1) / warmup
    progress = (step + 1 - warmup) / (total - warmup)
    return schedule.floor + (1 - schedule.floor) * (1 + math.cos(math.pi * progress)) / 2
