"""Interface of translators from visible to infrared; :mod:`training.translation` implements it."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from training.data.images import Pixels
from training.data.seeding import generator_of

__all__ = ["Translator", "require_translator", "translate_by_name"]


class Translator(Protocol):
    """Makes an infrared-looking picture from a visible one, pixel-aligned with it."""

    def __call__(self, image: Pixels, rng: np.random.Generator) -> Pixels:
        """uint8 RGB ``[H, W, 3]`` → a new array of that shape with three equal channels."""
        ...


def require_translator(translator: Translator | None) -> Translator:
    """The translator, where one is needed.

    Raises:
        ValueError: there is none.
    """
    if translator is None:
        raise ValueError("an infrared image is to be translated from a visible one, but no translator was chosen")
    return translator


def translate_by_name(image: Pixels, name: str, translator: Translator) -> Pixels:
    """Translate for evaluation: what is drawn follows from the file's name, so that every run sees the same."""
    return translator(image, generator_of(name))
