"""Identity classification."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from training.losses.base import Loss

__all__ = ["CrossEntropy"]


class CrossEntropy(Loss):
    """Mean cross-entropy of the identity logits, over all rows of all streams.

    Here ``embeddings`` are the logits ``[B, classes]`` and ``identities`` labels in ``[0, classes)``; the modality
    plays no part. No label smoothing.

        L = -1/B Σ_i log softmax(logits_i)[identity_i]
    """

    def compute(self, embeddings: Tensor, identities: Tensor, modalities: Tensor) -> Tensor:  # noqa: ARG002
        return F.cross_entropy(embeddings, identities)
