"""Weighted regularised triplet loss."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from training.losses.base import Loss
from training.losses.pairs import masked_softmax, pair_masks, pairwise_distances

__all__ = ["WeightedTriplet"]


class WeightedTriplet(Loss):
    """Triplet loss without a margin over all pairs, with larger weights for harder ones (Ye et al., TPAMI 2021).

        w_ij = softmax over P(i) of d_ij        u_ij = softmax over N(i) of -d_ij
        L = mean_i softplus(Σ_{j in P(i)} w_ij d_ij - Σ_{j in N(i)} u_ij d_ij)

    ``d`` is the Euclidean distance of the unnormalised embeddings; P(i) are the other rows of the same identity and
    N(i) those of other identities, in any modality. Unlike in the code of AGW, the anchor is not its own positive, and
    the weights sum to 1 for embeddings of any length. An anchor without a positive or without a negative is ignored; if
    none remains, the loss is zero.
    """

    def compute(self, embeddings: Tensor, identities: Tensor, modalities: Tensor) -> Tensor:  # noqa: ARG002
        positive, negative = pair_masks(identities)
        usable = positive.any(1) & negative.any(1)
        if not usable.any():
            return embeddings.sum() * 0
        distances = pairwise_distances(embeddings)[usable]
        far = (masked_softmax(distances, positive[usable]) * distances).sum(1)
        near = (masked_softmax(-distances, negative[usable]) * distances).sum(1)
        return F.softplus(far - near).mean()
