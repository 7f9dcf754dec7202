"""What every loss shares: one signature, one check, float32 arithmetic."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

__all__ = ["Loss", "check_batch"]


class Loss(nn.Module, ABC):
    """``loss(embeddings, identities, modalities) -> scalar``.

    Shapes: embeddings ``[B, D]`` floating, identities and modalities ``[B]`` int64. Rows may come in any order:
    who is who is read from the labels, never from a position. The result is at least float32, also under autocast.
    A loss that finds no valid pair in the batch is zero and keeps the graph.

    Raises:
        ValueError: the shapes do not agree.
    """

    def forward(self, embeddings: Tensor, identities: Tensor, modalities: Tensor) -> Tensor:
        check_batch(embeddings, identities, modalities)
        with torch.autocast(embeddings.device.type, enabled=False):
            full = embeddings.float() if embeddings.dtype in (torch.float16, torch.bfloat16) else embeddings
            return self.compute(full, identities, modalities)

    @abstractmethod
    def compute(self, embeddings: Tensor, identities: Tensor, modalities: Tensor) -> Tensor:
        """The equation itself, on checked rows of float32 or float64."""


def check_batch(embeddings: Tensor, identities: Tensor, modalities: Tensor) -> None:
    """Raise ValueError unless the shapes are ``[B, D]``, ``[B]`` and ``[B]`` with B > 0."""
    rows = embeddings.shape[:1]
    if embeddings.ndim != 2 or rows == (0,) or identities.shape != rows or modalities.shape != rows:
        raise ValueError(
            "expected embeddings [B, D] with B > 0, identities [B] and modalities [B], found "
            f"{list(embeddings.shape)}, {list(identities.shape)} and {list(modalities.shape)}"
        )
