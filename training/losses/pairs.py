"""Distances and pair masks of a batch, for the losses that compare its rows."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["batch_hard", "distances_between", "lengths", "masked_softmax", "pair_masks", "pairwise_distances"]

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


def distances_between(rows: Tensor, others: Tensor) -> Tensor:
    """Euclidean distances of every row to every other one: ``[A, D]``, ``[B, D]`` → ``[A, B]``; clamped as above."""
    middle = others.mean(0)
    rows, others = rows - middle, others - middle
    squared = rows.square().sum(1)[:, None] + others.square().sum(1)[None, :] - 2 * rows @ others.T
    return squared.clamp(min=_SMALLEST_SQUARE).sqrt()


def lengths(differences: Tensor) -> Tensor:
    """Euclidean lengths of the rows: ``[A, D]`` → ``[A]``; clamped as above."""
    return differences.square().sum(1).clamp(min=_SMALLEST_SQUARE).sqrt()


def pair_masks(identities: Tensor) -> tuple[Tensor, Tensor]:
    """Positives (same identity, the anchor itself left out) and negatives: two bool masks ``[B, B]``."""
    same = identities[:, None] == identities[None, :]
    itself = torch.eye(len(identities), dtype=torch.bool, device=identities.device)
    return same & ~itself, ~same


def masked_softmax(values: Tensor, mask: Tensor) -> Tensor:
    """Softmax of each row over the places where ``mask`` is True; 0 elsewhere. Every row needs such a place."""
    return values.masked_fill(~mask, -torch.inf).softmax(1)


def batch_hard(distances: Tensor, positive: Tensor, negative: Tensor, margin: float) -> Tensor:
    """Mean over anchors (rows) of ``max(0, margin + farthest positive - nearest negative)``, a scalar.

    ``distances`` ``[A, B]`` with two bool masks of its shape. An anchor without a positive or without a negative is
    left out; with none left the result is zero and keeps the graph.
    """
    usable = positive.any(1) & negative.any(1)
    if not usable.any():
        return distances.sum() * 0
    farthest = distances.masked_fill(~positive, -torch.inf).amax(1)[usable]
    nearest = distances.masked_fill(~negative, torch.inf).amin(1)[usable]
    return (margin + farthest - nearest).relu().mean()
