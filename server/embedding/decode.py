"""Untrusted bytes → the uint8 crop that a model's card asks for, and a thumbnail."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from models.card import InputSpec
from server.errors import ImageRejected, ImageTooLarge, ImageTypeUnsupported

__all__ = ["FORMATS", "THUMBNAIL_SIDE", "Pixels", "open_upright", "resize", "thumbnail"]

Pixels = NDArray[np.uint8]

FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
"""The only decoders that uploads reach."""

THUMBNAIL_SIDE = 256
"""Longest side of a thumbnail."""

_THUMBNAIL_QUALITY = 95  # what a gallery is embedded anew from; 80 halves the bytes and more than doubles the change
_THUMBNAIL_EFFORT = 2  # of 6; more costs a multiple of the time for a tenth of the bytes


def open_upright(data: bytes, *, max_pixels: int) -> Image.Image:
    """Decode an upload: RGB, turned as its EXIF orientation says, stripped of all metadata.

    Of an animation the first frame is taken. Transparency is dropped, palettes are resolved, grey is replicated to
    three channels; of 16-bit grey the high byte is kept. Sizes are read from the header, before any pixel is decoded.

    Raises:
        ImageTypeUnsupported: it is none of :data:`FORMATS`.
        ImageTooLarge: the header announces more than ``max_pixels`` pixels.
        ImageRejected: it is empty, truncated or broken.
    """
    if not data:
        raise ImageRejected("the upload is empty")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        if image.width * image.height > max_pixels:
            raise ImageTooLarge(_too_many_pixels(max_pixels, image.width, image.height))
        upright = ImageOps.exif_transpose(image)
        rgb = _eight_bit(upright).convert("RGB")
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageTooLarge(_too_many_pixels(max_pixels)) from None
    except UnidentifiedImageError:
        raise ImageTypeUnsupported("not a JPEG, PNG, WebP or BMP image") from None
    except ImageRejected:
        raise
    except Exception as error:  # Pillow's plug-ins raise many types on hostile input
        raise ImageRejected("the image is truncated or broken") from error
    rgb.info.clear()
    return rgb


def resize(image: Image.Image, spec: InputSpec) -> Pixels:
    """Resize to the card's size with the card's Pillow filter: uint8 RGB ``[height, width, 3]``."""
    kernel = Image.Resampling[spec.resize.upper()]
    return np.asarray(image.resize((spec.width, spec.height), kernel))


def thumbnail(image: Image.Image) -> bytes:
    """A WebP file without metadata, longest side at most :data:`THUMBNAIL_SIDE`, never larger than ``image``."""
    small = image.copy()
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BICUBIC)
    out = io.BytesIO()
    small.save(out, "WEBP", quality=_THUMBNAIL_QUALITY, method=_THUMBNAIL_EFFORT)
    return out.getvalue()


def _eight_bit(image: Image.Image) -> Image.Image:
    if not image.mode.startswith("I"):
        return image
    high_byte = np.clip(np.asarray(image).astype(np.int64) >> 8, 0, 255)  # convert() would clip at 255 instead
    return Image.fromarray(high_byte.astype(np.uint8))


def _too_many_pixels(limit: int, width: int | None = None, height: int | None = None) -> str:
    found = "" if width is None or height is None else f"{width:,} × {height:,} pixels; "
    return f"{found}at most {limit:,} pixels are taken"
