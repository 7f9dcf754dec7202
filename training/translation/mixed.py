"""Strong random translation from visible to infrared, for features that do not depend on the spectrum."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.data.images import Pixels

__all__ = ["MixedTranslation"]

_LEVELS = np.arange(256) / 255


@dataclass(frozen=True, slots=True)
class MixedTranslation:
    """A random mixture of the colour channels, then a gamma, then a random inversion.

    Thermal radiation has no fixed relation to visible light: a face is bright on a cold day and dark on a hot one. The
    recipe is ours.
    """

    gamma: tuple[float, float] = (0.5, 2.0)
    """Range of the exponent on values in [0, 1], uniform in its logarithm."""
    inversion: float = 0.3
    """Probability of inverting the image."""

    def __call__(self, image: Pixels, rng: np.random.Generator) -> Pixels:
        """Translate an image; always draws the mixture (uniform Dirichlet), the gamma and the inversion."""
        shares = rng.dirichlet((1.0, 1.0, 1.0)).astype(np.float32)
        exponent = np.exp(rng.uniform(*np.log(self.gamma)))
        inverted = rng.random() < self.inversion
        levels = np.rint(_LEVELS**exponent * 255).astype(np.uint8)
        if inverted:
            levels = 255 - levels
        grey = levels[(image @ shares).astype(np.uint8)]
        return np.repeat(grey[..., None], 3, axis=2)
