"""Decoding of untrusted image files to upright RGB pixels, and encoding of thumbnails."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from server.domain.errors import ImageRejected, ImageTooLarge, ServiceError
from server.embedding.depth import PERCENTILES, to_eight_bits
from server.embedding.image_file import FORMATS, ImageFile, Kind, check_size, inspect

__all__ = ["THUMBNAIL_SIDE", "decode_file", "decode_image", "thumbnail", "thumbnail_type"]

THUMBNAIL_SIDE = 256
"""Longest side of a thumbnail."""

# WebP at quality 95 is 10 % smaller, but it halves the colour resolution, which changes embeddings more, and takes 10
# to 40 times as long, longer than a small network.
_THUMBNAIL_QUALITY = 90

_JPEG = b"\xff\xd8\xff"
_UPRIGHT: dict[int, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.swapaxes(0, 1),
    6: lambda image: np.rot90(image, -1),
    7: lambda image: image[::-1, ::-1].swapaxes(0, 1),
    8: lambda image: np.rot90(image, 1),
}
"""What makes an image upright, by its EXIF orientation."""

Pixels = NDArray[np.uint8]


def decode_image(data: bytes, *, max_pixels: int, percentiles: tuple[float, float] = PERCENTILES) -> Pixels:
    """Decode an image file to uint8 RGB ``[H, W, 3]``, with its EXIF orientation applied.

    Only pixels and orientation matter; other metadata are not read. Animations yield their first frame. Transparency
    is dropped, palettes are resolved, and grey is replicated to three channels. Grey images of 16 bits or more and
    floating-point ones are stretched between ``percentiles`` (:func:`to_eight_bits`). Size and work are checked in the
    header before any pixel is decoded.

    Raises:
        ImageTypeUnsupported: the format is none of ``FORMATS``.
        ImageTooLarge: the image has more than ``max_pixels`` pixels, or takes too much work.
        ImageRejected: the file is empty, truncated or damaged.
    """
    return decode_file(inspect(data, max_pixels), max_pixels, percentiles)


def decode_file(file: ImageFile, max_pixels: int, percentiles: tuple[float, float] = PERCENTILES) -> Pixels:
    """Decode an inspected file; see :func:`decode_image`."""
    try:
        if file.kind is Kind.JPEG and (pixels := _decode_jpeg(file.data)) is not None:
            image, orientation = pixels, file.orientation
        else:
            image, orientation = _decode_with_pillow(file, max_pixels, percentiles)
    except ServiceError:
        raise
    except MemoryError:
        raise ImageRejected("decoding the image takes too much memory") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageTooLarge(f"at most {max_pixels:,} pixels are accepted") from None
    except Exception as error:  # Pillow's plug-ins raise many types on malformed files
        raise ImageRejected("the image is truncated or damaged") from error
    return np.ascontiguousarray(_UPRIGHT[orientation](image)) if orientation in _UPRIGHT else image


def thumbnail(image: Pixels) -> bytes:
    """Encode a JPEG thumbnail without metadata; its longest side is at most :data:`THUMBNAIL_SIDE`, never upscaled."""
    if max(image.shape) > THUMBNAIL_SIDE:
        small = Image.fromarray(image)
        small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BICUBIC)
        image = np.asarray(small)
    return bytes(simplejpeg.encode_jpeg(image, quality=_THUMBNAIL_QUALITY, colorsubsampling="444"))


def thumbnail_type(data: bytes) -> str | None:
    """Return the media type of a stored thumbnail: JPEG, or WebP from earlier versions; None if it is neither."""
    if data.startswith(_JPEG):
        return "image/jpeg"
    return "image/webp" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else None


def _decode_jpeg(data: bytes) -> Pixels | None:
    """Decode an intact JPEG; None if it is damaged, or of a kind that only Pillow reads.

    It uses the same library as Pillow and yields the same pixels, in less than half the time for a crop.
    """
    try:
        return np.asarray(simplejpeg.decode_jpeg(data, "RGB"))
    except MemoryError:
        raise
    except Exception:  # not only ValueError: it raises others, for instance for unknown chroma subsampling
        return None


def _decode_with_pillow(file: ImageFile, max_pixels: int, percentiles: tuple[float, float]) -> tuple[Pixels, int]:
    """Return pixels and the orientation that is still to be applied."""
    image = Image.open(io.BytesIO(file.data if file.complete else file.data[:-2]), formats=FORMATS)
    check_size(image.width, image.height, max_pixels)
    image.load()
    orientation = _stated_orientation(image) if file.kind is Kind.OTHER else file.orientation
    pixels = np.asarray(image)
    if file.kind is Kind.GREY_ALPHA_16:
        pixels = pixels[..., 0].astype(np.uint16) << 8 | pixels[..., 1]
    if pixels.dtype.kind == "f" or pixels.dtype.itemsize > 1:
        return np.repeat(to_eight_bits(pixels, percentiles)[..., None], 3, axis=2), orientation
    return np.asarray(image.convert("RGB")), orientation


def _stated_orientation(image: Image.Image) -> int:
    if image.format in {"TIFF", "AVIF"}:
        return 1  # Pillow applies it
    try:
        return int(image.getexif().get(0x0112, 1))
    except Exception:  # malformed metadata say nothing about the orientation
        return 1
