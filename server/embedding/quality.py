"""What may be wrong with a crop that is taken all the same, told from its pixels.

The figures of the constants: real crops are 10,319 visible ones of Market-1501 (64 × 128 pixels) and 125 aligned pairs,
visible and thermal, cut from MSRS frames of day and night (19 to 140 pixels wide); degraded ones are 600 of the former
and the thermal ones of the latter. ``/ n``: made smaller n times. ``× n``: multiplied by n. ``blur n``, ``motion n``:
Gaussian of standard deviation n, or n pixels to the side, where the crop is 64 × 128. Rank-1 is that of an
earlier ``baseline-lite``, visible query to visible gallery of another camera, 29.4 % on the crops as they are; it
learnt from most of these people, so only the fall tells something. None of the Market-1501 crops has a warning.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.card import InputSpec
from server.embedding.resize import Pixels, grey, scale
from server.gallery.types import CropWarning

__all__ = ["warnings_of"]

LEAST_PIXELS = 1 / 4
"""Pixels of a crop as a share of those that the model takes; with fewer it is enlarged to more than twice its size.

For an input of 64 × 128, 16.8 % of the MSRS crops have fewer, and all of the degraded visible ones at / 3. Rank-1 is
23.7 % at / 2, which is the bound, and 14.7 % at / 3.
"""

LEAST_BRIGHTNESS = 50
"""Grey level, of 255, that the brightest twentieth of a crop reaches, so that a lamp alone is not enough.

One thermal crop of 125 stays below, 99 % of visible and 94 % of thermal ones at × 0.2, 46 % and 74 % at × 0.3. Rank-1
is 6.9 % at × 0.3 and 2.5 % at × 0.2.
"""

LEAST_DETAIL = 0.012
"""Variance of the second derivative over that of the grey levels, in whichever direction it is less, at 32 × 64 pixels.

The variance of the Laplacian is the usual measure; it adds up both directions, so that a person who is blurred
along the way, which is how cameras blur people, still has the sharp edges across it. Divided by that of the grey
levels it depends on neither light nor contrast, and at a fixed size not on the crop's. 3.2 % of the visible and 4.0 %
of the thermal MSRS crops have less; with blur 3, 76 % of visible and 95 % of thermal ones (4: 99.7 % and 100 %), with
motion 13, 64 % and 80 % (19: 97 % and 99 %). Rank-1 is 2.5 % with blur 3 and 6.9 % with motion 13. The Laplacian at an
equal share of warnings finds about one in a hundred visible crops with motion 19.
"""

SHAPES = (1.2, 5.0)
"""Height of a crop over its width. Real ones have 1.5 to 3.9; frames of a camera, sent by mistake, at most 1."""

_SIZE = (32, 64)
_BRIGHT = round(0.95 * 32 * 64)


def warnings_of(image: Pixels, spec: InputSpec) -> frozenset[CropWarning]:
    """What may be wrong with an RGB crop ``[H, W, 3]`` of any size, for a model with inputs of ``spec``."""
    found = set()
    height, width, _ = image.shape
    if width * height < LEAST_PIXELS * spec.width * spec.height:
        found.add(CropWarning.TOO_SMALL)
    if not SHAPES[0] <= height / width <= SHAPES[1]:
        found.add(CropWarning.NOT_PERSON_SHAPED)
    levels = grey(scale(image, *_SIZE, "bilinear")).astype(np.float32)
    if np.partition(levels, _BRIGHT, axis=None)[_BRIGHT] < LEAST_BRIGHTNESS:
        found.add(CropWarning.TOO_DARK)
    if _detail(levels) <= LEAST_DETAIL * _variance(levels):  # a grey surface has none, and no variance
        found.add(CropWarning.BLURRED)
    return frozenset(found)


def _detail(levels: NDArray[np.float32]) -> float:
    across = levels[:, 2:] - 2 * levels[:, 1:-1] + levels[:, :-2]
    down = levels[2:] - 2 * levels[1:-1] + levels[:-2]
    return min(_variance(across), _variance(down))


def _variance(values: NDArray[np.float32]) -> float:
    """That of ``np.var``, which takes four times as long for so few."""
    from_mean = (values - values.sum() / values.size).ravel()
    return float(from_mean @ from_mean) / values.size
