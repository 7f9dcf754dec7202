"""Decomposition of an image into a smooth level and detail."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["NOISE", "SIGMA", "detail", "smooth"]

SIGMA = 8.0
"""Standard deviation in pixels, for crops 128 pixels high, of the Gaussian that separates level and detail."""

NOISE = 0.05
"""Standard deviation, of values in [0, 1], up to which detail is mostly noise."""


def smooth(x: Tensor, sigma: float = SIGMA) -> Tensor:
    """Compute Gaussian means, ``[..., H, W]`` → the same shape; weights outside the image are ignored."""
    return _gauss(x.shape[-2], sigma, x) @ x @ _gauss(x.shape[-1], sigma, x).T


def detail(x: Tensor, sigma: float = SIGMA) -> tuple[Tensor, Tensor]:
    """Compute the detail that :func:`smooth` removes, and its local standard deviation; both have the shape of x."""
    high = x - smooth(x, sigma)
    return high, (smooth(high.square(), sigma) + 1e-6).sqrt()


def _gauss(size: int, sigma: float, like: Tensor) -> Tensor:
    """Return a matrix whose row i has the weights of the mean at i; a product with it is faster than a convolution."""
    axis = torch.arange(size, device=like.device, dtype=like.dtype)
    weights = (-((axis[:, None] - axis).square()) / (2 * sigma**2)).exp()
    return weights / weights.sum(1, keepdim=True)
