"""Warnings about crops that are accepted but likely to match poorly, derived from their pixels.

The thresholds were measured on 10,319 visible crops of Market-1501 (64 × 128 pixels) and 125 aligned visible and
thermal pairs cut from MSRS frames of day and night (19 to 140 pixels wide), and on degraded copies of 600 of the former
and of the thermal ones. Degradations: ``/ n`` downscaled n times; ``× n`` multiplied by n; ``blur n`` and ``motion n``
a Gaussian of standard deviation n or a horizontal motion of n pixels, relative to a 64 × 128 crop. Rank-1 is that of an
earlier ``baseline-lite``, visible to visible across cameras, 29.4 % on the original crops; most of these people were in
its training data, so only the decrease is meaningful. None of the original Market-1501 crops has a warning.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.card import InputSpec
from server.domain.types import CropWarning
from server.embedding.resize import Pixels, scale, to_grey

__all__ = ["crop_warnings"]

MIN_PIXEL_SHARE = 1 / 4
"""Smallest number of pixels of a crop, as a share of the model's input; below it a crop is more than doubled in size.

For a 64 × 128 input, 16.8 % of the MSRS crops are below it, and all visible crops at / 3. Rank-1 is 23.7 % at / 2,
which is the threshold, and 14.7 % at / 3.
"""

MIN_BRIGHTNESS = 50
"""Grey level (0 to 255) that the 95th percentile of a crop must reach, so that a single lamp is not enough.

One thermal crop of 125 is below it, 99 % of the visible and 94 % of the thermal ones at × 0.2, 46 % and 74 % at × 0.3.
Rank-1 is 6.9 % at × 0.3 and 2.5 % at × 0.2.
"""

MIN_DETAIL = 0.012
"""Smallest ratio of the variance of the second derivative to that of the grey levels, at 32 × 64 pixels.

The ratio is taken in the direction in which it is smaller. The usual measure, the variance of the Laplacian, adds both
directions, so that a person blurred by motion in one direction still has sharp edges in the other. The ratio depends on
neither brightness nor contrast, and the fixed size makes it independent of the crop's. 3.2 % of the visible and 4.0 %
of the thermal MSRS crops are below it; with blur 3, 76 % of the visible and 95 % of the thermal ones (blur 4: 99.7 %
and 100 %), with motion 13, 64 % and 80 % (motion 19: 97 % and 99 %). Rank-1 is 2.5 % with blur 3 and 6.9 % with motion
13.
A Laplacian threshold with the same share of warnings detects about 1 % of the visible crops with motion 19.
"""

ASPECT_RATIOS = (1.2, 5.0)
"""Range of height over width. Real crops have 1.5 to 3.9; whole camera frames, sent by mistake, at most 1."""

_SIZE = (32, 64)
_P95_INDEX = round(0.95 * 32 * 64)


def crop_warnings(image: Pixels, spec: InputSpec) -> frozenset[CropWarning]:
    """Return the warnings for an RGB crop ``[H, W, 3]`` of any size and a model with the input ``spec``."""
    found = set()
    height, width, _ = image.shape
    if width * height < MIN_PIXEL_SHARE * spec.width * spec.height:
        found.add(CropWarning.TOO_SMALL)
    if not ASPECT_RATIOS[0] <= height / width <= ASPECT_RATIOS[1]:
        found.add(CropWarning.NOT_PERSON_SHAPED)
    levels = to_grey(scale(image, *_SIZE, "bilinear")).astype(np.float32)
    if np.partition(levels, _P95_INDEX, axis=None)[_P95_INDEX] < MIN_BRIGHTNESS:
        found.add(CropWarning.TOO_DARK)
    if _detail(levels) <= MIN_DETAIL * _variance(levels):  # <=: a uniform crop has zero detail and zero variance
        found.add(CropWarning.BLURRED)
    return frozenset(found)


def _detail(levels: NDArray[np.float32]) -> float:
    horizontal = levels[:, 2:] - 2 * levels[:, 1:-1] + levels[:, :-2]
    vertical = levels[2:] - 2 * levels[1:-1] + levels[:-2]
    return min(_variance(horizontal), _variance(vertical))


def _variance(values: NDArray[np.float32]) -> float:
    """Return the variance; ``np.var`` takes four times as long for arrays this small."""
    deviations = (values - values.sum() / values.size).ravel()
    return float(deviations @ deviations) / values.size
