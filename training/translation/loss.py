"""What a translator is trained for: a likely level, and detail as strong as the true one and akin to it."""

from __future__ import annotations

from torch import Tensor

from training.translation.network import Parts
from training.translation.smoothing import FAINT, detail, smooth

__all__ = ["translation_loss"]

_DEVIATION, _CORRELATION = 0.1, 0.1


def translation_loss(made: Parts, image: Tensor, true: Tensor) -> Tensor:
    """``|level - low(r)| + 0.1 |log σ_t / σ_r| + 0.1 (1 - ρ)``, a mean over places.

    σ is the local standard deviation of the detail, ρ the local correlation of the two details. Neither rewards a blur,
    as ``|t - r|`` and SSIM do: where the detail cannot be foreseen they ask for as much of it as is usual. A place
    counts as much as its visible detail stands out from noise: what is dark or empty has nothing to translate.

    Args:
        made: of the translator.
        image: what it was made of, uint8 RGB ``[N, H, W, 3]``.
        true: the aligned infrared picture, grey in [0, 1] ``[N, 1, H, W]``.
    """
    _, seen = detail(image.float().mean(3).unsqueeze(1) / 255)
    weight = seen / (seen + FAINT)
    high_true, deviation_true = detail(true)
    high, deviation = detail(made.detail)
    ratio = (deviation + FAINT) / (deviation_true + FAINT)
    correlation = smooth(high * high_true) / (deviation * deviation_true + FAINT**2)
    loss = (
        (made.level - smooth(true)).abs() + _DEVIATION * ratio.log().abs() + _CORRELATION * (1 - correlation)
    ) * weight
    return loss.sum() / weight.sum()
