"""Batch-hard triplet loss."""

from __future__ import annotations

from torch import Tensor

from training.losses.base import Loss
from training.losses.pairs import batch_hard, pair_masks, pairwise_distances

__all__ = ["Triplet"]


class Triplet(Loss):
    """Triplet loss of the hardest positive and hardest negative of each anchor (Hermans, Beyer and Leibe, 2017).

        L = mean_i max(0, margin + max_{j in P(i)} d_ij - min_{j in N(i)} d_ij)

    ``d`` is the Euclidean distance of the unnormalised embeddings; P(i) are the other rows of the same identity and
    N(i) those of other identities, in any modality. An anchor without a positive or without a negative is ignored; if
    none remains, the loss is zero.
    """

    def __init__(self, margin: float = 0.3) -> None:
        super().__init__()
        self.margin = margin

    def compute(self, embeddings: Tensor, identities: Tensor, modalities: Tensor) -> Tensor:  # noqa: ARG002
        return batch_hard(pairwise_distances(embeddings), *pair_masks(identities), self.margin)
