"""Modality-transition contrast in its distance form."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from training.data.augmentation import Role
from training.losses.base import PairedLoss, require
from training.losses.pairs import batch_hard, pairwise_distances

__all__ = ["TransitionMargin"]


class TransitionMargin(PairedLoss):
    """Margin loss from visible images to their transitions and from these to infrared (MTRL, distance form).

        L = 1/(2N) Σ_i ( max(0, m + d(v_i, t_i) - min_{y_j ≠ y_i} d(v_i, t_j))
                       + max(0, m + max_{y_j = y_i} d(t_i, r_j) - min_{y_j ≠ y_i} d(t_i, r_j)) )

    ``d`` is the Euclidean distance at unit length, t_i the transition of v_i. Each sum ignores rows without a pair, a
    positive or a negative.
    MTRL (arXiv 2511.02685): implemented from the published description; the unpublished details are ours.

    Raises:
        ValueError: a role is absent.
    """

    def __init__(self, margin: float = 0.3) -> None:
        super().__init__()
        self.margin = margin

    def compute(self, embeddings: Tensor, identities: Tensor, roles: Tensor, pairs: Tensor) -> Tensor:
        require(roles, *Role)
        distances = pairwise_distances(F.normalize(embeddings, dim=1))
        visible, infrared, transition = (roles == role for role in Role)
        same = identities[:, None] == identities[None, :]
        own = (pairs[:, None] == pairs[None, :]) & (pairs >= 0)
        first, second = visible[:, None] & transition, transition[:, None] & infrared
        return (
            batch_hard(distances, first & own, first & ~same, self.margin)
            + batch_hard(distances, second & same, second & ~same, self.margin)
        ) / 2
