"""Resizing of decoded images to a model's input size. Pillow's filters are the reference."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.card import InputSpec

try:
    from cykooz_resizer import FilterType, ImageData, PixelType, ResizeAlg, ResizeOptions, Resizer
except ImportError:  # it has no wheel for this processor
    Resizer = None

__all__ = ["Pixels", "resize", "scale", "to_grey"]

Pixels = NDArray[np.uint8]


def resize(image: Pixels, spec: InputSpec) -> Pixels:
    """Resize an RGB ``[H, W, 3]`` or grey ``[H, W]`` image as the card specifies, to RGB ``[height, width, 3]``."""
    scaled = scale(image, spec.width, spec.height, spec.resize)
    return scaled if scaled.ndim == 3 else np.repeat(scaled[..., None], 3, axis=2)


def scale(image: Pixels, width: int, height: int, kernel: str) -> Pixels:
    """Resize a uint8 image ``[H, W]`` or ``[H, W, 3]`` with the Pillow filter named ``kernel``.

    Bilinear downscaling uses a SIMD implementation, which takes a third of the time. It is the same filter with the
    passes in the other order and therefore other rounding: values differ by at most 2 of 255. Embeddings of 1,354 real
    crops agree to a cosine of 0.9999 on average and 0.998 at least. Upscaling uses Pillow (it would be 0.9996).
    """
    if image.shape[:2] == (height, width):
        return image
    if Resizer is None or kernel != "bilinear" or width > image.shape[1] or height > image.shape[0]:
        return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling[kernel.upper()]))
    kind = PixelType.U8 if image.ndim == 2 else PixelType.U8x3
    target = ImageData(width, height, kind)
    source = ImageData(image.shape[1], image.shape[0], kind, image.tobytes())
    Resizer().resize(source, target, _BILINEAR)  # a new one each time: it must not be shared between threads
    return np.frombuffer(target.get_buffer(), np.uint8).reshape(height, width, *image.shape[2:])


def to_grey(image: Pixels) -> Pixels:
    """Convert an RGB image ``[H, W, 3]`` to grey ``[H, W]`` with Pillow's weights."""
    return np.asarray(Image.fromarray(image).convert("L"))


_BILINEAR = Resizer and ResizeOptions(resize_alg=ResizeAlg.convolution(FilterType.bilinear))
