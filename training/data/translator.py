"""Interface for translators from visible to infrared, which :mod:`training.translation` implements."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from training.data.images import Pixels
from training.data.seeding import generator_of

__all__ = ["Translator", "require_translator", "translate_by_name"]


class Translator(Protocol):
    """Translates a visible image to a pixel-aligned infrared one."""

    def __call__(self, image: Pixels, rng: np.random.Generator) -> Pixels:
        """Translate uint8 RGB ``[H, W, 3]``; return a new array of that shape with three equal channels."""
        ...


def require_translator(translator: Translator | None) -> Translator:
    """Return the translator.

    Raises:
        ValueError: it is None.
    """
    if translator is None:
        raise ValueError("a visible image is to be translated to infrared, but no translator was configured")
    return translator


def translate_by_name(image: Pixels, name: str, translator: Translator) -> Pixels:
    """Translate for evaluation: random numbers depend only on the file name, so every run gets the same image."""
    return translator(image, generator_of(name))
