"""Input of the bare engines, the same in every process and environment."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["LARGEST", "pixels"]

LARGEST = 16
"""Crops of the largest batch."""


def pixels(height: int, width: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return reproducible noise, uint8 ``[16, height, width, 3]``, and its modalities, all visible."""
    shape = (LARGEST, height, width, 3)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8), np.zeros(LARGEST, np.int64)
