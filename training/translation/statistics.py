"""Translation without training by the statistics of real infrared images: transition images of level T1, "stats"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image
from scipy import fft

from training.data.images import Pixels, images_below
from training.data.translator import Translator
from training.translation.channel import ChannelTranslation

__all__ = ["StatisticsTranslation", "load_infrared_images"]


@dataclass(frozen=True, slots=True)
class StatisticsTranslation:
    """T0, matched to the statistics of a random infrared image of ``references``.

    ``moments``: its mean and standard deviation, ``(x - μ_x) / max(σ_x, 1e-3) · σ_r + μ_r``, clipped. ``amplitude``:
    its low frequencies, ``A ← G·A_r + (1 - G)·A_x`` with the phase kept; G is Gaussian. MTRL's transition image in a
    form that needs no training; the details are ours.

    Raises:
        ValueError: there is no reference.
    """

    references: Sequence[Pixels]
    """Grey images, ``[h, w]`` of any size."""
    match: Literal["moments", "amplitude"] = "moments"
    frequency: float = 0.05
    """Standard deviation of G in cycles per pixel."""
    base: Translator = field(default_factory=ChannelTranslation)
    share: float = 1.0
    """Probability that the statistics are matched."""

    def __post_init__(self) -> None:
        if not self.references:
            raise ValueError("expected infrared images as references, found none")

    def __call__(self, image: Pixels, rng: np.random.Generator) -> Pixels:
        """Translate an image; draws the random numbers of the base, then the reference."""
        translated = self.base(image, rng)
        if self.share < 1 and rng.random() >= self.share:
            return translated
        grey = translated[..., 0] / 255
        reference = self.references[int(rng.integers(len(self.references)))]
        if self.match == "moments":
            real = reference / 255
            matched = (grey - grey.mean()) / max(grey.std(), 1e-3) * real.std() + real.mean()
        else:
            matched = self._with_amplitude(grey, reference)
        levels = np.rint(matched.clip(0, 1) * 255).astype(np.uint8)
        return np.repeat(levels[..., None], 3, axis=2)

    def _with_amplitude(self, grey: np.ndarray, reference: Pixels) -> np.ndarray:
        height, width = grey.shape
        real = np.asarray(Image.fromarray(reference).resize((width, height), Image.Resampling.BILINEAR)) / 255
        spectrum, other = fft.rfft2(grey), fft.rfft2(real)
        squared = fft.fftfreq(height)[:, None] ** 2 + fft.rfftfreq(width)[None] ** 2
        share = np.exp(-squared / (2 * self.frequency**2))
        amplitude = share * abs(other) + (1 - share) * abs(spectrum)
        matched: np.ndarray = fft.irfft2(amplitude * np.exp(1j * np.angle(spectrum)), s=(height, width))
        return matched


def load_infrared_images(root: Path, count: int = 256) -> list[Pixels]:
    """Load at most ``count`` grey images ``[h, w]``, evenly spread over the image files below ``root``.

    Raises:
        FileNotFoundError: the folder does not exist or contains no image.
    """
    files = images_below(root)
    if not files:
        raise FileNotFoundError(f"{root}: no image below it")
    chosen = [files[round(i)] for i in np.linspace(0, len(files) - 1, min(count, len(files)))]
    return [np.array(Image.open(path).convert("L")) for path in chosen]
