"""Distillation between two classifiers of the same image."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Distillation"]


class Distillation(nn.Module):
    """``mean_i KL(p_teacher || p_student)`` of softened class posteriors, without a gradient to the teacher.

    Both logits are ``[B, classes]``, the result a scalar of at least float32. The temperature applies to both sides;
    the result is not multiplied by its square.
    """

    def __init__(self, temperature: float = 4.0) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        with torch.autocast(student.device.type, enabled=False):
            target, found = (
                F.log_softmax(logits.float() / self.temperature, dim=1) for logits in (teacher.detach(), student)
            )
            return F.kl_div(found, target, reduction="batchmean", log_target=True)
