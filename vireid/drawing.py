"""Draws people, for the demo and the tests: no picture of a real person is part of this project."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from models.card import Modality

__all__ = ["draw_person"]

Pixels = NDArray[np.uint8]
_SCALE = 4  # drawn larger, then reduced: soft edges


def draw_person(identity: int, modality: Modality, *, seed: int = 0, size: tuple[int, int] = (128, 64)) -> Pixels:
    """Draw one crop of a made-up person.

    ``identity`` fixes build and clothes; ``seed`` fixes pose, place, background and noise; the infrared picture
    is grey and shows the cloth's infrared brightness, which its colour tells only in part.

    Returns uint8 RGB ``[height, width, 3]`` with ``size = (height, width)``; the same arguments, the same pixels.
    """
    person = np.random.default_rng((identity, 1))
    scene = np.random.default_rng((identity, seed, modality.index, 2))
    build = person.uniform((0.75, 0.8, 0.5), (1.0, 1.2, 1.5))  # height, shoulders, leg gap
    colours = person.integers(20, 236, (4, 3))  # shirt, trousers, hair and shoes, bag
    infrared_shift = person.integers(-25, 26, 4)
    pattern, bag = int(person.integers(4)), bool(person.integers(2))

    def ink(part: int) -> tuple[int, ...]:
        if modality is Modality.VISIBLE:
            return tuple(int(v) for v in colours[part])
        grey = int(np.clip(colours[part] @ (0.299, 0.587, 0.114) + infrared_shift[part], 0, 255))
        return (grey, grey, grey)

    height, width = size[0] * _SCALE, size[1] * _SCALE
    ground = scene.integers(60, 180, 3) if modality is Modality.VISIBLE else np.full(3, scene.integers(30, 110))
    picture = Image.new("RGB", (width, height), tuple(int(v) for v in ground))
    draw = ImageDraw.Draw(picture)

    centre = width * (0.5 + scene.uniform(-0.06, 0.06))
    top, tall = height * (0.98 - 0.93 * build[0]), height * 0.93 * build[0]
    half, stride = width * 0.2 * build[1], width * 0.05 * build[2] * (1 + scene.uniform(0, 1))
    head, hip, foot = top + 0.15 * tall, top + 0.52 * tall, top + tall
    skin = (196, 152, 120) if modality is Modality.VISIBLE else (225, 225, 225)

    for side in (-1, 1):
        x = centre + side * (half * 0.45 + stride * 0.4)
        draw.rectangle((x - half * 0.4, hip - 4, x + half * 0.4, foot), fill=ink(1))
        draw.rectangle((x - half * 0.5, foot - 0.04 * tall, x + half * 0.5, foot), fill=ink(2))
        arm = centre + side * (half * 1.15 + stride * 0.3)
        draw.rectangle((arm - half * 0.18, head, arm + half * 0.18, hip), fill=ink(0))
    draw.rounded_rectangle((centre - half, head, centre + half, hip), half * 0.3, fill=ink(0))
    if pattern:
        step = (hip - head) / (2 * pattern + 1)
        for stripe in range(pattern):
            y = head + (2 * stripe + 1) * step
            draw.rectangle((centre - half, y, centre + half, y + step), fill=ink(3))
    if bag:
        draw.rectangle((centre + half * 0.5, head + 0.1 * tall, centre + half * 1.5, hip - 0.05 * tall), fill=ink(3))
    radius = 0.075 * tall
    draw.ellipse((centre - radius, top, centre + radius, top + 2 * radius), fill=skin)
    draw.pieslice((centre - radius, top, centre + radius, top + 2 * radius), 180, 360, fill=ink(2))

    small = picture.filter(ImageFilter.GaussianBlur(_SCALE)).resize((size[1], size[0]), Image.Resampling.LANCZOS)
    noise = scene.normal(0, 5, (*size, 1 if modality is Modality.INFRARED else 3))
    return np.clip(np.asarray(small, np.float32) + noise, 0, 255).astype(np.uint8)
