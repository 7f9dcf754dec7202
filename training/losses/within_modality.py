"""A loss within each modality."""

from __future__ import annotations

import torch
from torch import Tensor

from training.data.augmentation import Role
from training.losses.base import Loss, require

__all__ = ["WithinModality"]


class WithinModality(Loss):
    """The sum of another loss over only the visible rows and over only the infrared rows.

    It never pairs or averages rows across modalities (EMI's intra-modality enhancing).

    Raises:
        ValueError: a modality is absent.
    """

    def __init__(self, loss: Loss) -> None:
        super().__init__()
        self.loss = loss

    def compute(self, embeddings: Tensor, identities: Tensor, modalities: Tensor) -> Tensor:
        require(modalities, Role.VISIBLE, Role.INFRARED)
        parts = []
        for modality in (Role.VISIBLE, Role.INFRARED):
            own = modalities == modality
            parts.append(self.loss(embeddings[own], identities[own], modalities[own]))
        return torch.stack(parts).sum()
