"""Optimiser over two groups of parameters, and the learning rate of a step."""

from __future__ import annotations

import torch

from models.baseline import Baseline
from training.config import AdamW, Sgd

__all__ = ["build_optimiser", "set_learning_rate"]


def build_optimiser(config: Sgd | AdamW, network: Baseline) -> torch.optim.Optimizer:
    """Two groups: pretrained parts at ``pretrained_factor`` times the learning rate, new ones at the whole of it.

    Each group keeps its peak learning rate under ``"peak"``.
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
    """Set every group to ``factor`` times its peak."""
    for group in optimiser.param_groups:
        group["lr"] = group["peak"] * factor
