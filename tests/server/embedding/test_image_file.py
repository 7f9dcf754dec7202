"""Checks before decoding: files that would take much work are refused quickly."""

from __future__ import annotations

import struct
import time
import zlib
from collections.abc import Callable

import numpy as np
import pytest

from models.card import Modality
from server.domain.errors import ImageRejected, ImageTooLarge
from server.embedding.decode import decode_image
from server.embedding.image_file import SMALL_PIXELS, inspect, pixel_count
from tests.drawing import draw_person
from tests.server.image_files import encode

PERSON = draw_person(7, Modality.VISIBLE, size=(96, 48))
LIMIT = 25_000_000


def png(
    width: int, height: int, raw: bytes, *, depth: int = 8, colour: int = 0, chunk: int = 0, before: bytes = b""
) -> bytes:
    def chunk_of(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    packed = zlib.compress(raw, 9)
    size = chunk or len(packed)
    parts = [packed[start : start + size] for start in range(0, len(packed), size)]
    header = chunk_of(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + header
        + before
        + b"".join(chunk_of(b"IDAT", part) for part in parts)
        + chunk_of(b"IEND", b"")
    )


def progressive(side: int, repeated: int) -> bytes:
    """Return a progressive JPEG whose last scan is repeated."""
    file = encode(np.zeros((side, side), np.uint8), "JPEG", progressive=True)
    scan = file[file.rindex(b"\xff\xda") : -2]
    return file[:-2] + scan * repeated + b"\xff\xd9"


def taller(file: bytes, width: int, height: int) -> bytes:
    """Return a JPEG whose header claims another size."""
    at = max(file.find(b"\xff\xc0"), file.find(b"\xff\xc2"))
    return file[: at + 5] + struct.pack(">HH", height, width) + file[at + 9 :]


JPEG = encode(PERSON, "JPEG")
HOSTILE: dict[str, Callable[[], bytes]] = {
    "one column": lambda: png(1, LIMIT, bytes(2 * LIMIT)),
    "one row": lambda: png(LIMIT, 1, bytes(LIMIT + 1)),
    "two columns": lambda: png(2, LIMIT // 2, bytes(3 * LIMIT // 2)),
    "narrow": lambda: png(40, 15_000, bytes(41 * 15_000)),
    "200 scans": lambda: progressive(2000, 200),
    "many small scans": lambda: progressive(1000, 2000),
    "very many scans of a few pixels": lambda: progressive(8, 200_000),
    "claims of a JPEG": lambda: taller(JPEG, 5000, 5000),
    "claims of a progressive JPEG": lambda: taller(encode(PERSON, "JPEG", progressive=True), 5000, 5000),
    "claims of a PNG": lambda: png(5000, 5000, bytes(100)),
    "no pixels": lambda: taller(JPEG, 48, 0),
    "fill bytes": lambda: JPEG[:2] + b"\xff" * 9_000_000 + JPEG[2:],
    "fill bytes between segments": lambda: JPEG[:2] + (b"\xff" * 60_000 + b"\xfe\0\2") * 100 + JPEG[2:],
    "segments": lambda: JPEG[:2] + b"\xff\xfe\0\2" * 2_000_000 + JPEG[2:],
    "restart markers": lambda: JPEG[:2] + b"\xff\xd0" * 4_000_000 + JPEG[2:],
    "chunks": lambda: png(1, 1, b"\0\0", before=(b"\0\0\0\0abcd" + struct.pack(">I", zlib.crc32(b"abcd"))) * 800_000),
    "small chunks of pixels": lambda: png(2000, 2000, np.random.default_rng(0).bytes(2000 * 2001), chunk=50),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_expensive_files_are_refused_quickly(name: str) -> None:
    file = HOSTILE[name]()
    assert len(file) < 20_000_000
    started = time.process_time()
    with pytest.raises(ImageRejected) as refused:
        decode_image(file, max_pixels=LIMIT)
    assert time.process_time() - started < 0.25
    assert len(refused.value.reason) < 200


def test_limits_name_what_is_accepted() -> None:
    for name, words in {
        "one column": "1 × 25,000,000 pixels",
        "very many scans of a few pixels": "more than 1,000 scans of 64 pixels",
        "200 scans": "scans of",
        "fill bytes": "fill bytes",
    }.items():
        with pytest.raises(ImageTooLarge, match=words):
            inspect(HOSTILE[name](), LIMIT)


@pytest.mark.parametrize(
    "file",
    [
        encode(np.zeros((4000, 6000, 3), np.uint8), "JPEG", progressive=True),
        encode(np.zeros((4000, 6000), np.uint8), "JPEG"),
        encode(np.zeros((5000, 5000), np.uint8)),
        encode(np.zeros((16_000, 1000), np.uint8)),
        encode(np.zeros((3, 700), np.uint8)),
        encode(np.zeros((1, 1), np.uint8)),
        png(300, 300, bytes(300 * 301), chunk=10),
    ],
    ids=["progressive photo", "photo", "flat PNG", "tall", "low", "one pixel", "small chunks"],
)
def test_large_but_ordinary_files_are_accepted(file: bytes) -> None:
    assert not decode_image(file, max_pixels=LIMIT).any()


def test_only_small_sequential_files_are_simple() -> None:
    small, large = PERSON, np.zeros((1100, 1000, 3), np.uint8)
    assert large.shape[0] * large.shape[1] > SMALL_PIXELS
    simple = [
        encode(small, "JPEG"),
        encode(small),
        encode(small[..., 0], "JPEG"),
        encode(small[..., 0].astype(np.uint16)),
    ]
    others = [encode(small, "JPEG", progressive=True), encode(large, "JPEG"), encode(large)]
    others += [encode(small, kind) for kind in ("WEBP", "BMP", "TIFF", "GIF", "AVIF")]
    assert [inspect(file, LIMIT).simple for file in simple] == [True] * len(simple)
    assert [inspect(file, LIMIT).simple for file in others] == [False] * len(others)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "AVIF"])
def test_pixels_are_counted_from_the_header(kind: str) -> None:
    assert pixel_count(encode(PERSON, kind)) == 96 * 48
    assert pixel_count(encode(PERSON, kind)[:5]) == 0


def test_pixels_of_other_headers_are_counted() -> None:
    assert pixel_count(encode(PERSON, "WEBP", lossless=True)) == 96 * 48
    assert pixel_count(encode(PERSON, "WEBP", exif=b"x")) == 96 * 48
    assert pixel_count(encode(PERSON, "JPEG", progressive=True)) == 96 * 48
    assert pixel_count(b"rubbish" * 10) == 0
