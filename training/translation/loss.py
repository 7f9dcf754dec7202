"""Loss of the translator: accurate level, and detail with the contrast and structure of the real one."""

from __future__ import annotations

from torch import Tensor

from training.translation.network import Parts
from training.translation.smoothing import NOISE, detail, smooth

__all__ = ["translation_loss"]

_DEVIATION, _CORRELATION = 0.1, 0.1


def translation_loss(translated: Parts, image: Tensor, real: Tensor) -> Tensor:
    """Return ``|level - low(r)| + 0.1 |log σ_t / σ_r| + 0.1 (1 - ρ)``, a weighted mean over positions.

    σ is the local standard deviation of the detail, ρ the local correlation of the two details. Unlike ``|t - r|`` and
    SSIM, they do not favour a blur where the detail cannot be predicted. The weight of a position depends on the
    contrast of the visible detail: dark or uniform regions have little.

    Args:
        translated: output of the translator.
        image: the visible image, uint8 RGB ``[N, H, W, 3]``.
        real: the aligned infrared image, grey in [0, 1] ``[N, 1, H, W]``.
    """
    _, contrast = detail(image.float().mean(3).unsqueeze(1) / 255)
    weight = contrast / (contrast + NOISE)
    high_real, deviation_real = detail(real)
    high, deviation = detail(translated.detail)
    ratio = (deviation + NOISE) / (deviation_real + NOISE)
    correlation = smooth(high * high_real) / (deviation * deviation_real + NOISE**2)
    loss = (
        (translated.level - smooth(real)).abs() + _DEVIATION * ratio.log().abs() + _CORRELATION * (1 - correlation)
    ) * weight
    return loss.sum() / weight.sum()
