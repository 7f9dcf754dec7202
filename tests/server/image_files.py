"""Valid and invalid image files for tests."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

from numpy.typing import NDArray
from PIL import Image

from models.card import Modality
from tests.drawing import draw_person
from tests.server.stub_model import HEIGHT, WIDTH

__all__ = ["TEXT", "crop", "encode", "giant_png", "truncated"]

TEXT = b"this is not an image, whatever its name says\n" * 20


def encode(pixels: NDArray[Any] | Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """Encode an image, given as uint8 ``[H, W, 3]`` or as Pillow image."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def crop(identity: int, modality: Modality = Modality.VISIBLE, seed: int = 0) -> bytes:
    """Return a PNG of a drawn person in the input size of the stub model, which needs no resizing."""
    return encode(draw_person(identity, modality, seed=seed, size=(HEIGHT, WIDTH)))


def truncated(identity: int = 1) -> bytes:
    """Return the first half of a JPEG."""
    whole = encode(draw_person(identity, Modality.VISIBLE), "JPEG")
    return whole[: len(whole) // 2]


def giant_png(width: int, height: int) -> bytes:
    """Return a PNG of a few bytes whose header declares ``width`` × ``height`` pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
