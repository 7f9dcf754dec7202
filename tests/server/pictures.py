"""Image files, good and bad, drawn here."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

from numpy.typing import NDArray
from PIL import Image

from models.card import Modality
from tests.drawing import draw_person
from tests.server.standin import HEIGHT, WIDTH

__all__ = ["TEXT", "crop", "encode", "giant_png", "truncated"]

TEXT = b"this is no picture, whatever its name says\n" * 20


def encode(pixels: NDArray[Any] | Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """An image file; uint8 ``[H, W, 3]`` or a Pillow image."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def crop(identity: int, modality: Modality = Modality.VISIBLE, seed: int = 0) -> bytes:
    """A PNG of a drawn person, of the stand-in's size: it takes these very pixels."""
    return encode(draw_person(identity, modality, seed=seed, size=(HEIGHT, WIDTH)))


def truncated(identity: int = 1) -> bytes:
    """A JPEG that ends in the middle."""
    whole = encode(draw_person(identity, Modality.VISIBLE), "JPEG")
    return whole[: len(whole) // 2]


def giant_png(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header announces ``width`` × ``height`` pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
