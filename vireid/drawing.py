"""Drawings of made-up people for the demo and the tests: the project contains no image of a real person."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from models.card import Modality

__all__ = ["draw_person"]

Pixels = NDArray[np.uint8]
Colour = tuple[int, ...]
_SCALE = 4  # drawn larger, then reduced, for soft edges
_NOISE = 5.0  # standard deviation, in grey levels
_SKIN = {Modality.VISIBLE: (196, 152, 120), Modality.INFRARED: (225, 225, 225)}


@dataclass(frozen=True, slots=True)
class _Look:
    """Build and clothes of a person. ``colours`` has the rows shirt, trousers, hair and shoes, bag and stripes."""

    height: float
    shoulders: float
    leg_gap: float
    colours: NDArray[np.int64]
    infrared_shift: NDArray[np.int64]
    stripes: int
    has_bag: bool

    @classmethod
    def of(cls, identity: int) -> _Look:
        random = np.random.default_rng((identity, 1))
        height, shoulders, leg_gap = random.uniform((0.75, 0.8, 0.5), (1.0, 1.2, 1.5))
        colours, shift = random.integers(20, 236, (4, 3)), random.integers(-25, 26, 4)
        stripes, has_bag = int(random.integers(4)), bool(random.integers(2))
        return cls(height, shoulders, leg_gap, colours, shift, stripes, has_bag)

    def colour(self, part: int, modality: Modality) -> Colour:
        """Return the colour of a part; its infrared brightness depends on the colour only in part."""
        if modality is Modality.VISIBLE:
            return tuple(int(value) for value in self.colours[part])
        grey = int(np.clip(self.colours[part] @ (0.299, 0.587, 0.114) + self.infrared_shift[part], 0, 255))
        return (grey, grey, grey)


def draw_person(identity: int, modality: Modality, *, seed: int = 0, size: tuple[int, int] = (128, 64)) -> Pixels:
    """Draw one crop of a made-up person.

    ``identity`` determines build and clothes; ``seed`` determines pose, position, background and noise. An infrared
    crop is grey.

    Returns uint8 RGB ``[height, width, 3]`` with ``size = (height, width)``; equal arguments give equal pixels.
    """
    look = _Look.of(identity)
    random = np.random.default_rng((identity, seed, modality.index, 2))
    visible = modality is Modality.VISIBLE
    ground = random.integers(60, 180, 3) if visible else np.full(3, random.integers(30, 110))
    image = Image.new("RGB", (size[1] * _SCALE, size[0] * _SCALE), tuple(int(value) for value in ground))
    _draw_figure(image, look, modality, random)
    small = image.filter(ImageFilter.GaussianBlur(_SCALE)).resize((size[1], size[0]), Image.Resampling.LANCZOS)
    noise = random.normal(0, _NOISE, (*size, 3 if visible else 1))
    return np.clip(np.asarray(small, np.float32) + noise, 0, 255).astype(np.uint8)


def _draw_figure(image: Image.Image, look: _Look, modality: Modality, random: np.random.Generator) -> None:
    """Draw the person onto the background, from the legs to the head."""
    width, height = image.size
    draw = ImageDraw.Draw(image)
    shirt, trousers, dark, accent = (look.colour(part, modality) for part in range(4))
    centre = width * (0.5 + random.uniform(-0.06, 0.06))
    top, tall = height * (0.98 - 0.93 * look.height), height * 0.93 * look.height
    half, stride = width * 0.2 * look.shoulders, width * 0.05 * look.leg_gap * (1 + random.uniform(0, 1))
    neck, hip, foot = top + 0.15 * tall, top + 0.52 * tall, top + tall

    for side in (-1, 1):
        leg = centre + side * (half * 0.45 + stride * 0.4)
        draw.rectangle((leg - half * 0.4, hip - 4, leg + half * 0.4, foot), fill=trousers)
        draw.rectangle((leg - half * 0.5, foot - 0.04 * tall, leg + half * 0.5, foot), fill=dark)
        arm = centre + side * (half * 1.15 + stride * 0.3)
        draw.rectangle((arm - half * 0.18, neck, arm + half * 0.18, hip), fill=shirt)
    draw.rounded_rectangle((centre - half, neck, centre + half, hip), half * 0.3, fill=shirt)
    step = (hip - neck) / (2 * look.stripes + 1)
    for stripe in range(look.stripes):
        y = neck + (2 * stripe + 1) * step
        draw.rectangle((centre - half, y, centre + half, y + step), fill=accent)
    if look.has_bag:
        draw.rectangle((centre + half * 0.5, neck + 0.1 * tall, centre + half * 1.5, hip - 0.05 * tall), fill=accent)
    radius = 0.075 * tall
    draw.ellipse((centre - radius, top, centre + radius, top + 2 * radius), fill=_SKIN[modality])
    draw.pieslice((centre - radius, top, centre + radius, top + 2 * radius), 180, 360, fill=dark)
