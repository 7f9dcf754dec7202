"""Learning rate over time, as a pure function: nothing of it needs to be stored or restored."""

from __future__ import annotations

import math

from training.config import Cosine, Steps

__all__ = ["learning_rate_factor"]


def learning_rate_factor(schedule: Steps | Cosine, step: int, steps_per_epoch: int, epochs: int) -> float:
    """Share of the peak learning rate at ``step`` (counted from 0 over the whole run), in (0, 1].

    With e the epoch (from 0), s = step + 1 and w the warm-up:

        steps:   (e + 1) / w while e < w, then gamma ** (number of milestones <= e)
        cosine:  s / (w · steps_per_epoch) in the warm-up, then half a cosine, ``floor`` at the last step
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
