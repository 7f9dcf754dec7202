"""Decoding and resizing of image files, without augmentation."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from models.card import Modality
from models.crop_files import IMAGE_SUFFIXES, of_system_because
from training.data.depth import to_eight_bits
from training.data.records import Record
from training.data.skipped import Skipped

__all__ = ["Pixels", "ResizeFilter", "Shares", "cut_sides", "image_files", "images_below", "load", "resize"]

Pixels = NDArray[np.uint8]
"""RGB, ``[H, W, 3]``."""

ResizeFilter = Literal["bilinear", "bicubic", "lanczos"]

Shares = tuple[float, float, float, float]
"""Shares of the height or width that are cut from the top, bottom, left and right."""

FORMATS = ("AVIF", "BMP", "DIB", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
"""Pillow's decoders that read files with the suffixes of images."""


def image_files(folder: Path, skipped: Skipped | None = None) -> list[Path]:
    """Return the image files directly in a folder, sorted by name; other entries are counted in ``skipped``."""
    files = []
    for path in sorted(folder.iterdir()):
        if reason := _reason_to_skip(path):
            if skipped is not None:
                skipped.add(reason, path)
        else:
            files.append(path)
    return files


def images_below(root: Path) -> list[Path]:
    """Return the image files anywhere below a folder, sorted."""
    return sorted(
        path
        for path in root.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES and not of_system_because(path.relative_to(root).as_posix())
    )


def _reason_to_skip(path: Path) -> str | None:
    if of_system_because(path.name, folder=path.is_dir()):
        return "system files and folders"
    if path.is_dir():
        return "folders where an image is expected"
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        return f"{path.suffix} files" if path.suffix else "files without a suffix"
    return None if path.is_file() else "broken links"


def load(record: Record, size: tuple[int, int] | None = None, filter: ResizeFilter = "bilinear") -> Pixels:
    """Decode a crop, apply its EXIF orientation and resize it to ``size = (height, width)`` if given.

    A visible image keeps its colours; an infrared one is converted to grey in three equal channels. For a translated
    record the visible source is returned, in colour.

    Grey images deeper than 8 bits are mapped to 8 bits by :func:`training.data.depth.to_eight_bits`.

    Raises:
        ValueError: the file is not a readable image; the message starts with its path.
        OSError: the file cannot be opened.
    """
    grey = record.modality is Modality.INFRARED and not record.translated
    upright = _decode(record)
    plain = upright.convert("L" if grey else "RGB")
    if size is not None:
        plain = plain.resize((size[1], size[0]), Image.Resampling[filter.upper()])
    return np.array(plain.convert("RGB"))


def _decode(record: Record) -> Image.Image:
    """Decode to 8 bits per channel and apply the EXIF orientation."""
    with record.path.open("rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns about malformed metadata, which is harmless
        try:
            with Image.open(file, formats=FORMATS) as image:
                image.load()
                upright = _upright(image)
                deep = upright.mode[0] in "IF"
                return Image.fromarray(to_eight_bits(np.asarray(upright), record.levels)) if deep else upright
        except Exception as error:  # decoders raise many types for malformed files, such as struct.error
            raise ValueError(f"{printable(record.path)}: not a readable image ({error})") from error


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # malformed EXIF has no usable orientation
        return image.copy()


def printable(path: Path) -> str:
    """Return a path as text that can be encoded: bytes that are not UTF-8 are escaped."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def resize(image: Pixels, size: tuple[int, int], filter: ResizeFilter) -> Pixels:
    """Resize to ``size = (height, width)`` with Pillow's filter of that name."""
    return np.array(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling[filter.upper()]))


def cut_sides(image: Pixels, shares: Shares, filter: ResizeFilter = "bilinear") -> Pixels:
    """Cut a share off each side and resize the rest to the original shape."""
    height, width = image.shape[:2]
    top, bottom, left, right = shares
    rows = slice(round(top * height), height - round(bottom * height))
    columns = slice(round(left * width), width - round(right * width))
    return resize(image[rows, columns].copy(), (height, width), filter)
