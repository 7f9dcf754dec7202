"""Mapping of grey images deeper than 8 bits to 8 bits (``models.card.DepthRule``)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["PERCENTILES", "to_eight_bits"]

PERCENTILES = (1.0, 99.0)
"""Those of the rule's first version."""


def to_eight_bits(image: NDArray[Any], percentiles: tuple[float, float] = PERCENTILES) -> NDArray[np.uint8]:
    """Stretch an integer or floating-point image ``[H, W]`` linearly, so that its percentiles become 0 and 255.

    Training applies the same rule; both are checked with ``tests/vectors/deep_infrared.json``.
    """
    if image.dtype.kind == "u" and image.dtype.itemsize == 2:  # by a table: 20 times as fast for a photo
        native = image.astype(np.uint16, copy=False)
        counts = np.bincount(native.ravel(), minlength=1 << 16).cumsum()
        low, high = (int(np.searchsorted(counts, rank + 1)) for rank in _ranks(native.size, percentiles))
        return _levels(np.arange(1 << 16), low, high)[native]
    finite = image[np.isfinite(image)]
    if not finite.size:
        return np.zeros(image.shape, np.uint8)
    ranks = _ranks(finite.size, percentiles)
    low, high = np.partition(finite, ranks)[ranks].tolist()
    return _levels(image, low, high)


def _ranks(count: int, percentiles: tuple[float, float]) -> list[int]:
    """Return the positions of percentiles among sorted values: the smallest value that such a share does not exceed."""
    return [max(math.ceil(percent / 100 * count), 1) - 1 for percent in percentiles]


def _levels(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    with np.errstate(invalid="ignore"):
        levels = np.rint(255 * np.clip((values.astype(np.float64) - low) / (high - low or 1.0), 0, 1))
    levels[values >= high] = 255
    levels[~(values > low)] = 0  # also NaN
    result: NDArray[np.uint8] = levels.astype(np.uint8)
    return result
