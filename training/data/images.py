"""From a file to pixels: what a crop looks like before anything is drawn at random."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from models.card import Modality
from training.data.records import Record

__all__ = ["SUFFIXES", "Pixels", "ResizeFilter", "Shares", "cut_sides", "image_files", "load", "resize"]

Pixels = NDArray[np.uint8]
"""RGB, ``[H, W, 3]``."""

ResizeFilter = Literal["bilinear", "bicubic", "lanczos"]

Shares = tuple[float, float, float, float]
"""Of the height or width, cut from the top, bottom, left and right."""

SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".webp"})


def image_files(folder: Path) -> list[Path]:
    """The image files directly in a folder, by name; everything else and hidden files are ignored."""
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.name[0] != "." and p.is_file())


def load(record: Record, size: tuple[int, int] | None = None, filter: ResizeFilter = "bilinear") -> Pixels:
    """Decode a crop, upright by its EXIF orientation, resized to ``size = (height, width)`` if given.

    A visible picture keeps its colours; an infrared one becomes grey in three equal channels, whatever its file
    holds. Of an imitation the visible source is returned, in colour.

    Raises:
        ValueError: the file is not a readable 8-bit image; the message begins with its path.
        OSError: the file cannot be opened.
    """
    grey = record.modality is Modality.INFRARED and not record.imitated
    with record.path.open("rb") as file:
        try:
            with Image.open(file) as picture:
                upright = ImageOps.exif_transpose(picture)
        except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
            raise ValueError(f"{record.path}: not a readable image ({error})") from error
    if upright.mode[0] in "IF":
        raise ValueError(f"{record.path}: expected 8 bits a channel, found mode {upright.mode}")
    plain = upright.convert("L" if grey else "RGB")
    if size is not None:
        plain = plain.resize((size[1], size[0]), Image.Resampling[filter.upper()])
    return np.array(plain.convert("RGB"))


def resize(image: Pixels, size: tuple[int, int], filter: ResizeFilter) -> Pixels:
    """Resize to ``size = (height, width)`` with Pillow's filter of that name."""
    return np.array(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling[filter.upper()]))


def cut_sides(image: Pixels, shares: Shares, filter: ResizeFilter = "bilinear") -> Pixels:
    """Cut a share off each side and resize back to the shape it had."""
    height, width = image.shape[:2]
    top, bottom, left, right = shares
    rows = slice(round(top * height), height - round(bottom * height))
    columns = slice(round(left * width), width - round(right * width))
    return resize(image[rows, columns].copy(), (height, width), filter)
