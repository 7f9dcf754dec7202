"""Untrained translation with the statistics of real infrared pictures: the transition image of level T1, "stats"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image
from scipy import fft

from training.data.images import SUFFIXES, Pixels
from training.data.translator import Translator
from training.translation.channel import ChannelTranslation

__all__ = ["StatisticsTranslation", "infrared_pictures"]


@dataclass(frozen=True, slots=True)
class StatisticsTranslation:
    """T0, then the statistics of an infrared picture that is drawn from ``references``.

    ``moments``: its mean and standard deviation, ``(x - μ_x) / max(σ_x, 1e-3) · σ_r + μ_r``, clipped. ``amplitude``:
    its low frequencies, ``A ← G·A_r + (1 - G)·A_x`` with the phase kept; G is Gaussian. MTRL's transition image in a
    form that needs no training; the details are ours.

    Raises:
        ValueError: there is no reference.
    """

    references: Sequence[Pixels]
    """Grey, ``[h, w]`` of any size."""
    match: Literal["moments", "amplitude"] = "moments"
    frequency: float = 0.05
    """Standard deviation of G in cycles per pixel."""
    base: Translator = field(default_factory=ChannelTranslation)
    share: float = 1.0
    """Probability that statistics are matched at all."""

    def __post_init__(self) -> None:
        if not self.references:
            raise ValueError("expected infrared pictures to take the statistics of, found none")

    def __call__(self, image: Pixels, rng: np.random.Generator) -> Pixels:
        """Translate; draws what the base draws, then the reference."""
        made = self.base(image, rng)
        if self.share < 1 and rng.random() >= self.share:
            return made
        grey = made[..., 0] / 255
        reference = self.references[int(rng.integers(len(self.references)))]
        if self.match == "moments":
            true = reference / 255
            matched = (grey - grey.mean()) / max(grey.std(), 1e-3) * true.std() + true.mean()
        else:
            matched = self._with_amplitude(grey, reference)
        levels = np.rint(matched.clip(0, 1) * 255).astype(np.uint8)
        return np.repeat(levels[..., None], 3, axis=2)

    def _with_amplitude(self, grey: np.ndarray, reference: Pixels) -> np.ndarray:
        height, width = grey.shape
        true = np.asarray(Image.fromarray(reference).resize((width, height), Image.Resampling.BILINEAR)) / 255
        spectrum, other = fft.rfft2(grey), fft.rfft2(true)
        squared = fft.fftfreq(height)[:, None] ** 2 + fft.rfftfreq(width)[None] ** 2
        share = np.exp(-squared / (2 * self.frequency**2))
        amplitude = share * abs(other) + (1 - share) * abs(spectrum)
        made: np.ndarray = fft.irfft2(amplitude * np.exp(1j * np.angle(spectrum)), s=(height, width))
        return made


def infrared_pictures(root: Path, count: int = 256) -> list[Pixels]:
    """Grey pictures ``[h, w]`` spread evenly over the image files anywhere below ``root``, ``count`` at most.

    Raises:
        FileNotFoundError: there is no such folder, or no image in it.
    """
    files = sorted(path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not files:
        raise FileNotFoundError(f"{root}: no image below it")
    chosen = [files[round(i)] for i in np.linspace(0, len(files) - 1, min(count, len(files)))]
    return [np.array(Image.open(path).convert("L")) for path in chosen]
