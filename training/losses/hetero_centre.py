"""Hetero-centre loss."""

from __future__ import annotations

from torch import Tensor

from training.data.augmentation import Role
from training.losses.base import Loss, require
from training.losses.centres import group_means

__all__ = ["HeteroCentre"]


class HeteroCentre(Loss):
    """Squared distance between the visible and infrared centres of an identity (Zhu et al., Neurocomputing 2020).

        L = 1/P Σ_p |c_p^V - c_p^R|²

    Centres are those of the batch, of the unnormalised embeddings. An identity with one modality is ignored; if none
    remains, the loss is zero.

    Raises:
        ValueError: a modality is absent.
    """

    def compute(self, embeddings: Tensor, identities: Tensor, modalities: Tensor) -> Tensor:
        require(modalities, Role.VISIBLE, Role.INFRARED)
        means, sizes, _ = group_means(embeddings, identities, modalities, 2)
        gaps = (means[:, Role.VISIBLE] - means[:, Role.INFRARED])[(sizes > 0).all(1)]
        return gaps.square().sum() / max(len(gaps), 1)
