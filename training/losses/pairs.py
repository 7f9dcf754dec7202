"""Distances and pair masks of a batch, for the losses that compare its rows."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["masked_softmax", "pair_masks", "pairwise_distances"]

_SMALLEST_SQUARE = 1e-12  # the root has no finite gradient at 0


def pairwise_distances(rows: Tensor) -> Tensor:
    """Euclidean distances ``sqrt(max(squared, 1e-12))`` between all rows: ``[B, D]`` → ``[B, B]``.

    Computed about the mean of the rows, which changes no distance and keeps digits when the rows are long.
    """
    centred = rows - rows.mean(0)
    products = centred @ centred.T
    lengths = products.diagonal()
    squared = lengths[:, None] + lengths[None, :] - 2 * products
    return squared.clamp(min=_SMALLEST_SQUARE).sqrt()


def pair_masks(identities: Tensor) -> tuple[Tensor, Tensor]:
    """Positives (same identity, the anchor itself left out) and negatives: two bool masks ``[B, B]``."""
    same = identities[:, None] == identities[None, :]
    itself = torch.eye(len(identities), dtype=torch.bool, device=identities.device)
    return same & ~itself, ~same


def masked_softmax(values: Tensor, mask: Tensor) -> Tensor:
    """Softmax of each row over the places where ``mask`` is True; 0 elsewhere. Every row needs such a place."""
    return values.masked_fill(~mask, -torch.inf).softmax(1)
