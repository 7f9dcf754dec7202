"""Translation from visible to infrared without training: transition images of level T0, "channel"."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.data.images import Pixels

__all__ = ["LUMA", "ChannelTranslation", "stretch"]

LUMA = (0.299, 0.587, 0.114)
_LEVELS = np.arange(256) / 255


@dataclass(frozen=True, slots=True)
class ChannelTranslation:
    """One colour channel or luma, then gamma, then a stretch of the contrast to the image's percentiles.

    Source: MTRL's transition image in a form that needs no training; the details are ours. It is physically plausible
    only for near infrared, which is reflected like visible light; thermal radiation is emitted.
    """

    luma: float = 0.25
    """Probability of luma instead of one of R, G, B."""
    gamma: tuple[float, float] = (0.7, 1.4)
    """Range of the exponent on values in [0, 1]."""
    percentiles: tuple[float, float] | None = (2.0, 98.0)
    """Percentiles that become 0 and 255; None: no stretch."""

    def __call__(self, image: Pixels, rng: np.random.Generator) -> Pixels:
        """Translate an image; always draws the channel and then the gamma from ``rng``."""
        luma, channel = rng.random() < self.luma, int(rng.integers(3))
        grey = _luma(image) if luma else image[..., channel]
        table = _LEVELS ** rng.uniform(*self.gamma)
        if self.percentiles is not None:
            # gamma is monotonic, so it maps percentiles to percentiles
            low, high = table[_percentiles(grey, self.percentiles)]
            table = np.clip((table - low) / max(high - low, 1e-3), 0, 1)
        levels = np.rint(table * 255).astype(np.uint8)
        return np.repeat(levels[grey][..., None], 3, axis=2)


def stretch(grey: Pixels, percentiles: tuple[float, float] = (2.0, 98.0)) -> Pixels:
    """Stretch grey ``[H, W]`` so that its percentiles become 0 and 255; values beyond are clipped."""
    low, high = (int(level) for level in _percentiles(grey, percentiles))
    table = np.clip((np.arange(256.0) - low) / max(high - low, 1), 0, 1)
    stretched: Pixels = np.rint(table * 255).astype(np.uint8)[grey]
    return stretched


def _luma(image: Pixels) -> Pixels:
    luma: Pixels = np.rint(image @ np.array(LUMA)).astype(np.uint8)
    return luma


def _percentiles(grey: Pixels, percents: tuple[float, float]) -> NDArray[np.intp]:
    """Return the grey levels at the percentiles (inverse of the empirical distribution)."""
    reached = np.cumsum(np.bincount(grey.ravel(), minlength=256)) / grey.size
    return np.searchsorted(reached, np.array(percents) / 100).clip(max=255)
