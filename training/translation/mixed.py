"""Strong random translation from visible to infrared: what survives it does not depend on how a camera sees light."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.data.images import Pixels

__all__ = ["MixedTranslation"]

_LEVELS = np.arange(256) / 255


@dataclass(frozen=True, slots=True)
class MixedTranslation:
    """A random mixture of the colour channels, then a gamma, then perhaps the negative.

    Thermal radiation has no fixed relation to visible light: a warm face on a cold day is bright, on a hot day dark.
    The recipe is ours.
    """

    gamma: tuple[float, float] = (0.5, 2.0)
    """Range of the exponent on values in [0, 1], uniform in its logarithm."""
    inversion: float = 0.3
    """Probability of the negative."""

    def __call__(self, image: Pixels, rng: np.random.Generator) -> Pixels:
        """Translate; draws the mixture (uniform over all, Dirichlet), the gamma and the inversion, always all three."""
        shares = rng.dirichlet((1.0, 1.0, 1.0)).astype(np.float32)
        exponent = np.exp(rng.uniform(*np.log(self.gamma)))
        inverted = rng.random() < self.inversion
        levels = np.rint(_LEVELS**exponent * 255).astype(np.uint8)
        if inverted:
            levels = 255 - levels
        grey = levels[(image @ shares).astype(np.uint8)]
        return np.repeat(grey[..., None], 3, axis=2)
