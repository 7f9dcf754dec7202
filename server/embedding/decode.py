"""Untrusted bytes → upright RGB pixels, and a thumbnail of them."""

from __future__ import annotations

import io
from contextlib import suppress

import numpy as np
import simplejpeg
from PIL import Image, ImageOps, UnidentifiedImageError

from server.embedding.resize import Pixels
from server.errors import ImageRejected, ImageTooLarge, ImageTypeUnsupported

__all__ = ["FORMATS", "THUMBNAIL_SIDE", "open_upright", "thumbnail", "thumbnail_type"]

FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
"""The only decoders that uploads reach."""

THUMBNAIL_SIDE = 256
"""Longest side of a thumbnail."""

# WebP at quality 95 has a tenth less bytes, but halves the colours' resolution, which moves an embedding further, and
# takes 10 to 40 times as long, more than a small network.
_THUMBNAIL_QUALITY = 90

_JPEG = b"\xff\xd8\xff"
_APP1 = b"\xff\xe1"  # EXIF and XMP, which may turn a picture; compressed pixels never hold it
_PLAIN_COLOURS = {"Gray", "YCbCr", "RGB"}


def open_upright(data: bytes, *, max_pixels: int) -> Pixels:
    """Decode an upload: uint8 RGB ``[H, W, 3]``, turned as its EXIF orientation says.

    Of an animation the first frame is taken. Transparency is dropped, palettes are resolved, grey is replicated to
    three channels; of 16-bit grey the high byte is kept. Sizes are read from the header, before any pixel is decoded.

    Raises:
        ImageTypeUnsupported: it is none of :data:`FORMATS`.
        ImageTooLarge: the header announces more than ``max_pixels`` pixels.
        ImageRejected: it is empty, truncated or broken.
    """
    if not data:
        raise ImageRejected("the upload is empty")
    if (plain := _plain_jpeg(data, max_pixels)) is not None:
        return plain
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        if image.width * image.height > max_pixels:
            raise ImageTooLarge(_too_many_pixels(max_pixels, image.width, image.height))
        ImageOps.exif_transpose(image, in_place=True)
        return np.asarray(_eight_bit(image).convert("RGB"))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageTooLarge(_too_many_pixels(max_pixels)) from None
    except UnidentifiedImageError:
        raise ImageTypeUnsupported("not a JPEG, PNG, WebP or BMP image") from None
    except ImageRejected:
        raise
    except Exception as error:  # Pillow's plug-ins raise many types on hostile input
        raise ImageRejected("the image is truncated or broken") from error


def thumbnail(image: Pixels) -> bytes:
    """A JPEG file without metadata, longest side at most :data:`THUMBNAIL_SIDE`, never larger than ``image``."""
    if max(image.shape) > THUMBNAIL_SIDE:
        small = Image.fromarray(image)
        small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BICUBIC)
        image = np.asarray(small)
    return bytes(simplejpeg.encode_jpeg(image, quality=_THUMBNAIL_QUALITY, colorsubsampling="444"))


def thumbnail_type(data: bytes) -> str | None:
    """Media type of a thumbnail: a JPEG, or a WebP, as an earlier build made; None: it is neither."""
    if data.startswith(_JPEG):
        return "image/jpeg"
    return "image/webp" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else None


def _plain_jpeg(data: bytes, max_pixels: int) -> Pixels | None:
    """The pixels of a JPEG file without a fault that nothing turns; None: it is something else, and Pillow judges it.

    The same library as Pillow's decodes it to the same pixels, in less than half of the time for a crop.
    """
    if not data.startswith(_JPEG) or _APP1 in data:
        return None
    with suppress(Exception):  # not ValueError alone: it has no name for some kinds of sampling, for one
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if colours in _PLAIN_COLOURS and width * height <= max_pixels:
            return np.asarray(simplejpeg.decode_jpeg(data, "RGB"))
    return None


def _eight_bit(image: Image.Image) -> Image.Image:
    if not image.mode.startswith("I"):
        return image
    high_byte = np.clip(np.asarray(image).astype(np.int64) >> 8, 0, 255)  # convert() would clip at 255 instead
    return Image.fromarray(high_byte.astype(np.uint8))


def _too_many_pixels(limit: int, width: int | None = None, height: int | None = None) -> str:
    found = "" if width is None or height is None else f"{width:,} × {height:,} pixels; "
    return f"{found}at most {limit:,} pixels are taken"
