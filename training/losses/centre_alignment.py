"""Alignment of the centres of an identity's visible, transition and infrared images."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from training.data.augmentation import Role
from training.losses.base import Loss, require
from training.losses.centres import group_means
from training.losses.pairs import batch_hard, pairwise_distances

__all__ = ["CentreAlignment"]


class CentreAlignment(Loss):
    """Squared distances between the three role centres of each identity (MTRL's L_center), in [0, 3] without the hinge.

        c_p^m = mean of z over identity p and role m, normalised to unit length
        L = 1/P Σ_p ( |c_p^v - c_p^t|² + |c_p^t - c_p^r|² + |c_p^v - c_p^r|² ) / 3
        hinge: + 1/(3P) Σ_{p,m} max(0, m + max_{m'} d(c_p^m, c_p^m') - min_{q ≠ p, m'} d(c_p^m, c_q^m'))

    ``z`` are the embeddings at unit length; centres are those of the batch. Takes roles instead of modalities. An
    identity without images of a role is ignored; if none remains, the loss is zero.
    MTRL (arXiv 2511.02685): implemented from the published description; the unpublished details are ours.

    Args:
        margin: margin of the hinge that separates centres of different identities; None for no hinge.

    Raises:
        ValueError: a role is absent.
    """

    def __init__(self, margin: float | None = None) -> None:
        super().__init__()
        self.margin = margin

    def compute(self, embeddings: Tensor, identities: Tensor, modalities: Tensor) -> Tensor:
        require(modalities, *Role)
        means, sizes, _ = group_means(F.normalize(embeddings, dim=1), identities, modalities, len(Role))
        complete = (sizes > 0).all(1)
        if not complete.any():
            return embeddings.sum() * 0
        centres = F.normalize(means[complete], dim=2)
        loss = (centres - centres.roll(1, 1)).square().sum(2).mean()  # rolled by one: each of the three pairs once
        if self.margin is None:
            return loss
        people = torch.arange(len(centres), device=centres.device).repeat_interleave(len(Role))
        same = people[:, None] == people[None, :]
        return loss + batch_hard(pairwise_distances(centres.flatten(0, 1)), same, ~same, self.margin)
