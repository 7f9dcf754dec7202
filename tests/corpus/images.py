"""Malformed, mislabelled and expensive image files, drawn from a seed."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from random import Random
from typing import Any

from PIL import Image

from tests.corpus.mutation import damaged

__all__ = ["hostile_images"]

Maker = Callable[[Random], bytes]

_FORMATS: tuple[tuple[str, Sequence[str], dict[str, Any]], ...] = (
    ("JPEG", ("L", "RGB", "CMYK"), {}),
    ("JPEG", ("RGB", "L"), {"progressive": True}),
    ("PNG", ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"), {}),
    ("WEBP", ("RGB", "RGBA"), {}),
    ("WEBP", ("RGB",), {"lossless": True}),
    ("GIF", ("L", "P"), {}),
    ("TIFF", ("1", "L", "RGB", "RGBA", "CMYK", "I;16", "F"), {}),
    ("TIFF", ("L", "RGB"), {"compression": "tiff_lzw"}),
    ("TIFF", ("L", "RGB"), {"compression": "tiff_adobe_deflate"}),
    ("BMP", ("1", "L", "RGB"), {}),
    ("AVIF", ("RGB",), {"speed": 10}),
)
_SIDES = (1, 2, 3, 7, 16, 31, 64, 129)
_LARGE = (0, 1, 16_384, 16_385, 65_535, 65_536, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
_PNG = b"\x89PNG\r\n\x1a\n"


def hostile_images(count: int, seed: int) -> Iterator[bytes]:
    """Yield ``count`` image files, each at most about a megabyte: half damaged at random, half built on purpose."""
    draw = Random(seed)
    for number in range(count):
        if number % 2:
            yield damaged(draw, draw.choice(_MAKERS if number % 8 == 1 else (_valid,))(draw))
        else:
            yield draw.choice(_MAKERS)(draw)


def _picture(draw: Random, mode: str, sides: Sequence[int] = _SIDES) -> Image.Image:
    size = draw.choice(sides), draw.choice(sides)
    if mode in ("I;16", "F"):
        bits = 2 if mode == "I;16" else 4
        return Image.frombytes(mode, size, draw.randbytes(bits * size[0] * size[1]))
    return Image.frombytes("RGB", size, draw.randbytes(3 * size[0] * size[1])).convert(mode)


def _valid(draw: Random) -> bytes:
    kind, modes, options = draw.choice(_FORMATS)
    out = io.BytesIO()
    _picture(draw, draw.choice(modes)).save(out, kind, **options)
    return out.getvalue()


def _jpeg(draw: Random, **options: Any) -> bytes:
    out = io.BytesIO()
    _picture(draw, "RGB").save(out, "JPEG", **options)
    return out.getvalue()


def _segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _exif_garbage(draw: Random) -> bytes:
    """JPEG with EXIF that is random, cyclic, or of every byte order and count."""
    order = draw.choice((b"II*\0", b"MM\0*", b"XX\0*", b""))
    number = "<" if order.startswith(b"II") else ">"
    entries = b"".join(
        struct.pack(
            f"{number}HHII", draw.choice((0x0112, 0x8769, 0xFFFF)), draw.randint(0, 14), *draw.sample(_LARGE, 2)
        )
        for _ in range(draw.randint(0, 40))
    )
    directory = struct.pack(f"{number}IH", draw.choice((8, 0, 2**31)), draw.choice((0, 1, 40, 65_535))) + entries
    exif = b"Exif\0\0" + order + directory + draw.choice((b"", draw.randbytes(200)))
    whole = _jpeg(draw)
    return whole[:2] + draw.randint(1, 20) * _segment(0xE1, exif) + whole[2:]


def _many_scans(draw: Random) -> bytes:
    """Progressive JPEG whose scans are repeated, perhaps with a size that makes each of them expensive."""
    whole = bytearray(_jpeg(draw, progressive=True))
    scan = whole[whole.rindex(b"\xff\xda") : -2]
    if draw.random() < 0.5:
        frame = whole.index(b"\xff\xc2")
        whole[frame + 5 : frame + 9] = struct.pack(">HH", draw.choice((5_000, 16_384, 65_535)), 5_000)
    return bytes(whole[:-2]) + bytes(scan) * draw.choice((10, 200, 2_000)) + b"\xff\xd9"


def _fill_bytes(draw: Random) -> bytes:
    """JPEG with fill bytes, or restart markers, before a segment."""
    whole = _jpeg(draw)
    return whole[:2] + draw.choice((b"\xff", b"\xff\xd0")) * draw.choice((1, 1_000, 65_537, 300_000)) + whole[2:]


def _many_segments(draw: Random) -> bytes:
    whole = _jpeg(draw)
    segment = _segment(draw.choice((0xE0, 0xE2, 0xED, 0xFE, 0xDB)), draw.randbytes(draw.choice((0, 1, 64))))
    return whole[:2] + segment * draw.choice((10, 4_000, 20_000)) + whole[2:]


def _jpeg_claims(draw: Random) -> bytes:
    whole = bytearray(_jpeg(draw))
    frame = whole.index(b"\xff\xc0")
    whole[frame + 4] = draw.choice((8, 12, 0, 255))
    whole[frame + 5 : frame + 9] = struct.pack(">HH", *(draw.choice((0, 1, 16_384, 65_535)) for _ in range(2)))
    whole[frame + 9] = draw.choice((0, 1, 2, 3, 4, 255))
    return bytes(whole)


def _png_claims(draw: Random) -> bytes:
    """PNG whose header claims any size, depth and colour type."""
    sizes = draw.choice(_LARGE), draw.choice(_LARGE)
    header = struct.pack(">IIBBBBB", *sizes, draw.choice((1, 8, 16, 255)), draw.randint(0, 7), 0, 0, draw.randint(0, 2))
    pixels = zlib.compress(bytes(draw.choice((0, 1, 100_000, 2_000_000))))
    return _PNG + _chunk(b"IHDR", header) + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")


def _png_bomb(draw: Random) -> bytes:
    """PNG with compressed text, a profile or an animation that unpacks to megabytes."""
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 8, 2, 0, 0, 0))
    packed = zlib.compress(bytes(draw.choice((1_000, 10_000_000))))
    name = draw.choice((b"zTXt", b"iCCP", b"iTXt", b"eXIf", b"fdAT", b"tRNS", b"PLTE"))
    extra = _chunk(name, b"x\0\0" + packed) * draw.choice((1, 20))
    pixels = _chunk(b"IDAT", zlib.compress(bytes(4 * 13)))
    return _PNG + header + extra + pixels + _chunk(b"IEND", b"")


def _many_chunks(draw: Random) -> bytes:
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 8, 2, 0, 0, 0))
    pixels = zlib.compress(bytes(4 * 13))
    many = draw.choice((_chunk(b"IDAT", b""), _chunk(b"tEXt", b"a\0b"), _chunk(b"quux", b""))) * draw.choice(
        (9, 30_000)
    )
    return _PNG + header + many + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")


def _thin(draw: Random) -> bytes:
    """Image of extreme aspect ratio."""
    long = draw.choice((257, 5_000, 16_384, 16_385, 60_000))
    size = (1, long) if draw.random() < 0.5 else (long, 1)
    out = io.BytesIO()
    Image.new("L", size).save(out, draw.choice(("PNG", "JPEG", "BMP", "TIFF", "GIF")))
    return out.getvalue()


def _frames(draw: Random) -> bytes:
    """Animation, or a TIFF file of many pages."""
    kind = draw.choice(("GIF", "WEBP", "TIFF", "PNG"))
    pages = [_picture(draw, "RGB", (16,)) for _ in range(draw.choice((2, 40)))]
    out = io.BytesIO()
    pages[0].save(out, kind, save_all=True, append_images=pages[1:])
    return out.getvalue()


def _tiff_claims(draw: Random) -> bytes:
    """TIFF with directories that overlap, loop or claim any size."""
    tags = [(256, draw.choice(_LARGE)), (257, draw.choice(_LARGE)), (258, draw.choice((1, 8, 16, 32, 64, 2**16 - 1)))]
    tags += [
        (259, draw.choice((1, 2, 5, 7, 8, 32773, 34925, 50000))),
        (262, draw.randint(0, 9)),
        (273, draw.choice(_LARGE)),
    ]
    tags += [(277, draw.choice((0, 1, 3, 4, 60_000))), (278, draw.choice(_LARGE)), (279, draw.choice(_LARGE))]
    entries = b"".join(
        struct.pack("<HHII", tag, draw.choice((3, 4)), draw.choice((1, 1, 2**30)), value) for tag, value in tags
    )
    return (
        b"II*\0"
        + struct.pack("<IH", 8, len(tags))
        + entries
        + struct.pack("<I", draw.choice((0, 8)))
        + draw.randbytes(64)
    )


def _gif_claims(draw: Random) -> bytes:
    screen = b"GIF89a" + struct.pack("<HHBBB", draw.choice((1, 65_535)), draw.choice((1, 65_535)), 0xF7, 0, 0)
    frame = b"," + struct.pack("<HHHHB", *(draw.choice((0, 1, 65_535)) for _ in range(4)), 0)
    return (
        screen + draw.randbytes(768) + (frame + b"\x08\x04" + draw.randbytes(4) + b"\0") * draw.choice((1, 500)) + b";"
    )


def _bmp_claims(draw: Random) -> bytes:
    sides = [draw.choice((-(2**31), -1, 0, 1, 20_000, 2**31 - 1)) for _ in range(2)]
    header = struct.pack(
        "<IiiHHIIiiII", 40, *sides, 1, draw.choice((0, 1, 8, 24, 32)), draw.randint(0, 6), 0, 0, 0, 0, 0
    )
    return b"BM" + struct.pack("<IHHI", 2**31, 0, 0, 54) + header + draw.randbytes(64)


def _webp_claims(draw: Random) -> bytes:
    sides = b"".join(struct.pack("<I", draw.choice((0, 16_383, 2**24 - 1)))[:3] for _ in range(2))
    content = (
        b"WEBPVP8X" + struct.pack("<I", 10) + bytes([draw.choice((0, 2, 0x3E))]) + bytes(3) + sides + draw.randbytes(40)
    )
    return b"RIFF" + struct.pack("<I", draw.choice((len(content), 2**32 - 2))) + content


def _boxes(draw: Random) -> bytes:
    """AVIF of boxes in boxes, or of boxes with wrong lengths."""
    content = draw.randbytes(30)
    for _ in range(draw.choice((1, 300))):
        length = draw.choice((len(content) + 8, 0, 1, 2**32 - 1))
        content = struct.pack(">I", length) + draw.choice((b"meta", b"iprp", b"moov", b"iloc")) + content
    return struct.pack(">I", 24) + b"ftypavif\0\0\0\0avifmif1" + content


def _only_a_signature(draw: Random) -> bytes:
    starts = (b"\xff\xd8\xff", _PNG, b"GIF87a", b"II*\0", b"MM\0*", b"BM", b"RIFF\0\0\0\0WEBP", b"\0\0\0\x18ftypavif")
    return draw.choice(starts) + draw.randbytes(draw.choice((0, 1, 300)))


def _no_image(draw: Random) -> bytes:
    return draw.choice((b"", b"\0", b"%PDF-1.7\n", b"<svg/>", b"PK\x03\x04", draw.randbytes(500), b"\xff" * 49_000))


_MAKERS: tuple[Maker, ...] = (
    _valid,
    _exif_garbage,
    _many_scans,
    _fill_bytes,
    _many_segments,
    _jpeg_claims,
    partial(_jpeg, progressive=True),
    _png_claims,
    _png_bomb,
    _many_chunks,
    _thin,
    _frames,
    _tiff_claims,
    _gif_claims,
    _bmp_claims,
    _webp_claims,
    _boxes,
    _only_a_signature,
    _no_image,
)
