"""What is smooth in a picture, and by difference what is detail."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["FAINT", "SIGMA", "detail", "smooth"]

SIGMA = 8.0
"""Pixels of a crop that is 128 high: what a Gaussian of this width leaves is level, what it takes away is detail."""

FAINT = 0.05
"""Detail of about this standard deviation, of values in [0, 1], is noise as much as anything."""


def smooth(x: Tensor, sigma: float = SIGMA) -> Tensor:
    """Gaussian means, ``[..., H, W]`` → the same shape; weights that fall outside the picture are left out."""
    return _gauss(x.shape[-2], sigma, x) @ x @ _gauss(x.shape[-1], sigma, x).T


def detail(x: Tensor, sigma: float = SIGMA) -> tuple[Tensor, Tensor]:
    """What :func:`smooth` takes away, and its local standard deviation; both of the shape of x."""
    high = x - smooth(x, sigma)
    return high, (smooth(high.square(), sigma) + 1e-6).sqrt()


def _gauss(size: int, sigma: float, like: Tensor) -> Tensor:
    """Row i holds the weights of the mean at i: as one matrix product, much quicker here than a convolution."""
    axis = torch.arange(size, device=like.device, dtype=like.dtype)
    weights = (-((axis[:, None] - axis).square()) / (2 * sigma**2)).exp()
    return weights / weights.sum(1, keepdim=True)
