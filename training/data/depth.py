"""Mapping of images with more than 8 bits to 8 bits, as on the server (``models.card.DepthRule``).

The import rules do not allow training and server to share code that needs NumPy, so each implements the rule; both are
tested on the vectors in ``tests/vectors/deep_infrared.json``.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from models.card import DepthRule

__all__ = ["RULE", "to_eight_bits"]

RULE = DepthRule()


def to_eight_bits(image: NDArray[np.number], limits: tuple[float, float] | None = None) -> NDArray[np.uint8]:
    """Map grey ``[H, W]`` of any depth to uint8 ``[H, W]``; uint8 is returned unchanged.

    Args:
        image: integers, or floating-point numbers, which may be infinite or NaN.
        limits: values that become 0 and 255, if the range of the whole frame is known; else percentiles of the image.
    """
    if image.dtype == np.uint8:
        return image.astype(np.uint8, copy=False)
    values = image.astype(np.float64)
    finite = np.sort(values[np.isfinite(values)])
    if not len(finite):
        return np.zeros(image.shape, np.uint8)
    low, high = limits or (_percentile(finite, RULE.low), _percentile(finite, RULE.high))
    if high > low:
        with np.errstate(invalid="ignore"):
            levels = np.rint(((values - low) / (high - low)).clip(0, 1) * 255)
    else:
        levels = np.where(values > high, 255.0, 0.0)
    eight_bit: NDArray[np.uint8] = np.nan_to_num(levels, nan=0).astype(np.uint8)
    return eight_bit


def _percentile(ascending: NDArray[np.float64], percent: float) -> float:
    """Return the smallest value that is not exceeded by at least ``percent`` of the values."""
    return float(ascending[max(math.ceil(percent / 100 * len(ascending)), 1) - 1])
