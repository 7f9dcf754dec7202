"""Misalignment of aligned pairs, so that they cannot be matched by the position of the silhouette."""

from __future__ import annotations

from training.data.images import Pixels, ResizeFilter, cut_sides
from training.data.seeding import generator_of

__all__ = ["LARGEST_CUT", "mirror_and_recrop"]

LARGEST_CUT = 0.12
"""Maximum share of the height or width that is cut from a side."""


def mirror_and_recrop(image: Pixels, name: str, filter: ResizeFilter = "bilinear") -> Pixels:
    """Mirror the crop, cut 0–12 % of the height or width off each side and resize to the original shape.

    The four shares are uniform and depend only on the file name.
    """
    top, bottom, left, right = (float(share) for share in generator_of(name).uniform(0, LARGEST_CUT, 4))
    return cut_sides(image[:, ::-1], (top, bottom, left, right), filter)
