"""Translation by the learnt network: transition images of level T2."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from training.data.images import Pixels
from training.files import write_atomically
from training.translation.channel import stretch
from training.translation.network import TranslationNetwork, load_network

__all__ = ["LearntTranslation"]


@dataclass(frozen=True)
class LearntTranslation:
    """Translation of an image by the network, stretched, with a random gamma, since thermal cameras differ.

    The output of the network is cached on disk by the hashes of translator and image, so it is computed once for all
    runs and workers.

    Raises:
        OSError: the translator cannot be read.
        ValueError: the file is not a translator.
    """

    path: Path
    """File written by ``vireid translator train``."""
    gamma: tuple[float, float] = (0.7, 1.4)
    """Range of the exponent on values in [0, 1]."""
    cache: Path | None = None
    """Folder for cached translations; beside ``path`` by default."""
    _folder: Path = field(init=False, repr=False)

    def __post_init__(self) -> None:
        load_network(self.path)  # reports errors here instead of in a worker
        digest = hashlib.sha256(self.path.read_bytes()).hexdigest()
        object.__setattr__(self, "_folder", (self.cache or self.path.parent / "translated") / digest[:32])

    def __call__(self, image: Pixels, rng: np.random.Generator) -> Pixels:
        """Translate uint8 RGB ``[H, W, 3]``; return a new array with three equal channels. Draws only the gamma."""
        levels = np.rint((np.arange(256) / 255) ** rng.uniform(*self.gamma) * 255).astype(np.uint8)
        return np.repeat(levels[self._translated(image)][..., None], 3, axis=2)

    def _translated(self, image: Pixels) -> Pixels:
        """Return grey ``[H, W]``, from the cache if possible."""
        digest = hashlib.sha256(repr(image.shape).encode() + np.ascontiguousarray(image).tobytes()).hexdigest()[:32]
        file = self._folder / digest[:2] / f"{digest}.png"
        try:
            with Image.open(file) as cached:
                return np.array(cached)
        except FileNotFoundError:
            grey = self._compute(image)
            _write(file, grey)
            return grey

    @torch.inference_mode()
    def _compute(self, image: Pixels) -> Pixels:
        translated = self._network(torch.from_numpy(np.ascontiguousarray(image))[None])
        grey: Pixels = (translated[0, 0] * 255).round().to(torch.uint8).numpy()
        return stretch(grey)

    @cached_property
    def _network(self) -> TranslationNetwork:
        return load_network(self.path)[0]

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in self.__dict__.items() if name != "_network"}


def _write(file: Path, grey: Pixels) -> None:
    write_atomically(file, lambda stream: Image.fromarray(grey).save(stream, "PNG"))
