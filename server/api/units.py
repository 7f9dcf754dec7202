"""Unit vectors from lists of numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from server.gallery.types import Vectors

__all__ = ["unit_vector"]


def unit_vector(values: Sequence[float]) -> Vectors:
    """float32 ``[D]`` brought to unit length; ``values`` are near it already, as rounding on the wire leaves them."""
    vector = np.asarray(values, np.float64)
    return (vector / np.linalg.norm(vector)).astype(np.float32)
