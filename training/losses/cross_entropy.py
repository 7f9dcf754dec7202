"""Identity classification."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from training.losses.base import Loss

__all__ = ["CrossEntropy"]


class CrossEntropy(Loss):
    """Mean cross-entropy of the identity logits, over all rows of all streams.

    Here ``embeddings`` are the logits ``[B, classes]``; the modality is not used. Rows with a label of ``classes`` or
    more have no class and are ignored; 0 if none remains. No label smoothing.

        L = -1/B Σ_i log softmax(logits_i)[identity_i]
    """

    def compute(self, embeddings: Tensor, identities: Tensor, modalities: Tensor) -> Tensor:  # noqa: ARG002
        known = identities < embeddings.shape[1]
        total = F.cross_entropy(embeddings[known], identities[known], reduction="sum")
        return total / known.sum().clamp(min=1)
