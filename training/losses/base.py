"""Base classes of the losses: a common signature, checks of the shapes, float32 arithmetic."""

from __future__ import annotations

from abc import ABC, abstractmethod
from enum import IntEnum

import torch
from torch import Tensor, nn

__all__ = ["Loss", "PairedLoss", "check_batch", "require"]


class Loss(nn.Module, ABC):
    """``loss(embeddings, identities, modalities) -> scalar``.

    Shapes: embeddings ``[B, D]`` floating, identities and modalities ``[B]`` int64. Rows may be in any order: only the
    labels decide which rows belong together. The result is at least float32, also under autocast. A loss without a
    valid pair in the batch is zero and stays connected to the graph.

    Raises:
        ValueError: the shapes do not agree.
    """

    def forward(self, embeddings: Tensor, identities: Tensor, modalities: Tensor) -> Tensor:
        check_batch(embeddings, identities, modalities)
        with torch.autocast(embeddings.device.type, enabled=False):
            return self.compute(_full(embeddings), identities, modalities)

    @abstractmethod
    def compute(self, embeddings: Tensor, identities: Tensor, modalities: Tensor) -> Tensor:
        """Compute the loss from checked rows of float32 or float64."""


class PairedLoss(nn.Module, ABC):
    """``loss(embeddings, identities, roles, pairs) -> scalar``: a loss that uses pairs of an image and its transition.

    ``pairs`` int64 ``[B]``: a transition image and its visible source share a value ≥ 0; all others have -1.

    Raises:
        ValueError: the shapes do not agree.
    """

    def forward(self, embeddings: Tensor, identities: Tensor, roles: Tensor, pairs: Tensor) -> Tensor:
        check_batch(embeddings, identities, roles)
        if pairs.shape != identities.shape:
            raise ValueError(f"expected pairs {list(identities.shape)}, found {list(pairs.shape)}")
        with torch.autocast(embeddings.device.type, enabled=False):
            return self.compute(_full(embeddings), identities, roles, pairs)

    @abstractmethod
    def compute(self, embeddings: Tensor, identities: Tensor, roles: Tensor, pairs: Tensor) -> Tensor:
        """Compute the loss from checked rows of float32 or float64."""


def check_batch(embeddings: Tensor, identities: Tensor, modalities: Tensor) -> None:
    """Raise ValueError unless the shapes are ``[B, D]``, ``[B]`` and ``[B]`` with B > 0."""
    rows = embeddings.shape[:1]
    if embeddings.ndim != 2 or rows == (0,) or identities.shape != rows or modalities.shape != rows:
        raise ValueError(
            "expected embeddings [B, D] with B > 0, identities [B] and modalities [B], found "
            f"{list(embeddings.shape)}, {list(identities.shape)} and {list(modalities.shape)}"
        )


def require(labels: Tensor, *needed: IntEnum) -> None:
    """Raise ValueError unless each of ``needed`` is among the labels ``[B]``."""
    if missing := [member.name.lower() for member in needed if not (labels == member).any()]:
        raise ValueError(f"the batch has no {' and no '.join(missing)} rows")


def _full(embeddings: Tensor) -> Tensor:
    return embeddings.float() if embeddings.dtype in (torch.float16, torch.bfloat16) else embeddings
