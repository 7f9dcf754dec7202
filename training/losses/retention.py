"""Retention: the embeddings of the network at the start of a run are preserved."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Retention"]


class Retention(nn.Module):
    """``mean_i (1 - cos(z_i, t_i))`` over the rows that have a target.

    Both are ``[B, D]``; a row of zeros means that there is no target. The result is a scalar of at least float32, zero
    and connected to the graph if no row has a target.
    """

    def forward(self, embeddings: Tensor, targets: Tensor) -> Tensor:
        with torch.autocast(embeddings.device.type, enabled=False):
            given = targets.abs().sum(1) > 0
            alike = F.cosine_similarity(embeddings[given].float(), targets[given].float())
            return (1 - alike).sum() / given.sum().clamp(min=1)
