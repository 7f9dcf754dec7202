"""How alike a translation and the true infrared picture are."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["psnr", "ssim"]

_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = 0.01**2, 0.03**2


def psnr(made: Tensor, true: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of each picture: ``[N, 1, H, W]`` in [0, 1] → ``[N]``; infinite if equal."""
    return -10 * (made - true).square().mean((1, 2, 3)).log10()


def ssim(made: Tensor, true: Tensor) -> Tensor:
    """Structural similarity of each picture: ``[N, 1, H, W]`` in [0, 1], at least 11 × 11 → ``[N]`` in [-1, 1].

    Gaussian window of 11 pixels, σ = 1.5, over places where it fits (Wang et al., TIP 2004).
    """
    axis = torch.arange(_WINDOW, device=made.device, dtype=made.dtype) - _WINDOW // 2
    gauss = (-(axis**2) / (2 * _SIGMA**2)).exp()
    gauss = gauss / gauss.sum()

    def mean(x: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(x, gauss.view(1, 1, -1, 1)), gauss.view(1, 1, 1, -1))

    mean_made, mean_true = mean(made), mean(true)
    variance_made = mean(made * made) - mean_made**2
    variance_true = mean(true * true) - mean_true**2
    covariance = mean(made * true) - mean_made * mean_true
    alike = (2 * mean_made * mean_true + _C1) * (2 * covariance + _C2)
    scale = (mean_made**2 + mean_true**2 + _C1) * (variance_made + variance_true + _C2)
    return (alike / scale).mean((1, 2, 3))
