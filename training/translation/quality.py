"""Similarity metrics between a translation and the real infrared image."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["psnr", "ssim"]

_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = 0.01**2, 0.03**2


def psnr(translated: Tensor, real: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratio in dB of images ``[N, 1, H, W]`` in [0, 1]: ``[N]``; infinite if equal."""
    return -10 * (translated - real).square().mean((1, 2, 3)).log10()


def ssim(translated: Tensor, real: Tensor) -> Tensor:
    """Return the structural similarity of images ``[N, 1, H, W]`` in [0, 1], at least 11 × 11: ``[N]`` in [-1, 1].

    Gaussian window of 11 pixels, σ = 1.5, without padding (Wang et al., TIP 2004).
    """
    axis = torch.arange(_WINDOW, device=translated.device, dtype=translated.dtype) - _WINDOW // 2
    gauss = (-(axis**2) / (2 * _SIGMA**2)).exp()
    gauss = gauss / gauss.sum()

    def mean(x: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(x, gauss.view(1, 1, -1, 1)), gauss.view(1, 1, 1, -1))

    mean_translated, mean_real = mean(translated), mean(real)
    variance_translated = mean(translated * translated) - mean_translated**2
    variance_real = mean(real * real) - mean_real**2
    covariance = mean(translated * real) - mean_translated * mean_real
    similarity = (2 * mean_translated * mean_real + _C1) * (2 * covariance + _C2)
    scale = (mean_translated**2 + mean_real**2 + _C1) * (variance_translated + variance_real + _C2)
    return (similarity / scale).mean((1, 2, 3))
