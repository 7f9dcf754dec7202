"""Undoes the alignment of real pairs, so that judging on them measures more than the silhouette's place."""

from __future__ import annotations

from training.data.images import Pixels, ResizeFilter, cut_sides
from training.data.seeding import generator_of

__all__ = ["LARGEST_CUT", "mirror_and_recrop"]

LARGEST_CUT = 0.12
"""Largest share of the height or width that is cut from a side."""


def mirror_and_recrop(image: Pixels, name: str, filter: ResizeFilter = "bilinear") -> Pixels:
    """Mirror the crop, cut each side by 0–12 % of the height or width, resize back to the shape it had.

    The four cuts are uniform and follow from the file's name alone.
    """
    top, bottom, left, right = (float(share) for share in generator_of(name).uniform(0, LARGEST_CUT, 4))
    return cut_sides(image[:, ::-1], (top, bottom, left, right), filter)
