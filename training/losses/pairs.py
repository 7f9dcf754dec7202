"""Distances and pair masks of a batch, for the losses that compare its rows."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["batch_hard", "distances_between", "lengths", "masked_softmax", "pair_masks", "pairwise_distances"]

_SMALLEST_SQUARE = 1e-12  # the root has no finite gradient at 0


def pairwise_distances(rows: Tensor) -> Tensor:
    """Return Euclidean distances ``sqrt(max(squared, 1e-12))`` between all rows: ``[B, D]`` → ``[B, B]``.

    The mean of the rows is subtracted first, which changes no distance and improves the precision for long rows.
    """
    centred = rows - rows.mean(0)
    products = centred @ centred.T
    lengths = products.diagonal()
    squared = lengths[:, None] + lengths[None, :] - 2 * products
    return squared.clamp(min=_SMALLEST_SQUARE).sqrt()


def distances_between(rows: Tensor, others: Tensor) -> Tensor:
    """Return Euclidean distances from ``rows`` to ``others``, clamped as above: ``[A, D]``, ``[B, D]`` → ``[A, B]``."""
    mean = others.mean(0)
    rows, others = rows - mean, others - mean
    squared = rows.square().sum(1)[:, None] + others.square().sum(1)[None, :] - 2 * rows @ others.T
    return squared.clamp(min=_SMALLEST_SQUARE).sqrt()


def lengths(differences: Tensor) -> Tensor:
    """Return the Euclidean lengths of the rows, clamped as above: ``[A, D]`` → ``[A]``."""
    return differences.square().sum(1).clamp(min=_SMALLEST_SQUARE).sqrt()


def pair_masks(identities: Tensor) -> tuple[Tensor, Tensor]:
    """Return bool masks ``[B, B]`` of positives (same identity, without the anchor itself) and negatives."""
    same = identities[:, None] == identities[None, :]
    diagonal = torch.eye(len(identities), dtype=torch.bool, device=identities.device)
    return same & ~diagonal, ~same


def masked_softmax(values: Tensor, mask: Tensor) -> Tensor:
    """Return the softmax of each row over the elements where ``mask`` is True, at least one per row; 0 elsewhere."""
    return values.masked_fill(~mask, -torch.inf).softmax(1)


def batch_hard(distances: Tensor, positive: Tensor, negative: Tensor, margin: float) -> Tensor:
    """Return the mean over anchors (rows) of ``max(0, margin + farthest positive - nearest negative)``, a scalar.

    ``distances`` ``[A, B]`` with two bool masks of its shape. An anchor without a positive or without a negative is
    ignored; if none remains, the result is zero and stays connected to the graph.
    """
    usable = positive.any(1) & negative.any(1)
    if not usable.any():
        return distances.sum() * 0
    farthest = distances.masked_fill(~positive, -torch.inf).amax(1)[usable]
    nearest = distances.masked_fill(~negative, torch.inf).amin(1)[usable]
    return (margin + farthest - nearest).relu().mean()
