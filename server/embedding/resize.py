"""Decoded pictures at the size that a model takes. Pillow's filters are the reference."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.card import InputSpec

try:
    from cykooz_resizer import FilterType, ImageData, PixelType, ResizeAlg, ResizeOptions, Resizer
except ImportError:  # there is no wheel of it for this processor
    Resizer = None

__all__ = ["Pixels", "grey", "resize", "scale"]

Pixels = NDArray[np.uint8]


def resize(image: Pixels, spec: InputSpec) -> Pixels:
    """An RGB ``[H, W, 3]`` or grey ``[H, W]`` picture as the card says: uint8 RGB ``[height, width, 3]``."""
    scaled = scale(image, spec.width, spec.height, spec.resize)
    return scaled if scaled.ndim == 3 else np.repeat(scaled[..., None], 3, axis=2)


def scale(image: Pixels, width: int, height: int, kernel: str) -> Pixels:
    """A uint8 picture ``[H, W]`` or ``[H, W, 3]`` at another size, by Pillow's filter of that name.

    What bilinear makes smaller, SIMD makes smaller in a third of the time. It is the same filter, but down first and
    then across, which rounds otherwise: no value is further off than 2 of 255, few are off at all. Embeddings of real
    crops agree to a cosine of 0.9999 (mean; the least of 1,354 is 0.998). Where a picture grows it would be 0.9996.
    """
    if image.shape[:2] == (height, width):
        return image
    if Resizer is None or kernel != "bilinear" or width > image.shape[1] or height > image.shape[0]:
        return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling[kernel.upper()]))
    kind = PixelType.U8 if image.ndim == 2 else PixelType.U8x3
    target = ImageData(width, height, kind)
    source = ImageData(image.shape[1], image.shape[0], kind, image.tobytes())
    Resizer().resize(source, target, _BILINEAR)  # one of its own: it is for one thread at a time
    return np.frombuffer(target.get_buffer(), np.uint8).reshape(height, width, *image.shape[2:])


def grey(image: Pixels) -> Pixels:
    """Pillow's grey of an RGB picture ``[H, W, 3]``: ``[H, W]``."""
    return np.asarray(Image.fromarray(image).convert("L"))


_BILINEAR = Resizer and ResizeOptions(resize_alg=ResizeAlg.convolution(FilterType.bilinear))
