"""Inspection of image files before decoding: format, size, orientation and estimated work.

JPEG and PNG files are reduced to what decides their pixels, so that no metadata, however large or malformed, reaches a
decoder.
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass
from enum import Enum, auto

from server.domain.errors import ImageRejected, ImageTooLarge, ImageTypeUnsupported

__all__ = ["FORMATS", "ImageFile", "Kind", "check_size", "inspect", "pixel_count"]

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF")
"""Accepted formats, by Pillow's names."""

MAX_SIDE = 16_384
MAX_ASPECT = 256
MAX_SCAN_PIXELS = 320_000_000
"""Limit of scans × pixels of a JPEG: about 3 s of decoding."""
MAX_SCANS = 1_000
MAX_SEGMENTS = 4_096
MAX_CHUNKS = 20_000
MAX_FILL_BYTES = 65_536
SMALL_PIXELS = 1 << 20
"""Pixels up to which a sequential JPEG or PNG is decoded in a thread: at most some 20 ms."""

_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
_MARKER = re.compile(rb"\xff+[\x01-\xfe]")
_SCAN_OR_END = re.compile(rb"\xff[\xda\xd9]")
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SEQUENTIAL = {0xC0, 0xC1}
_STANDALONE = frozenset(range(0xD0, 0xD8)) | {0x01}
_METADATA = frozenset(range(0xE1, 0xF0)) - {0xEE} | {0xFE}
_SCAN, _END, _APP1 = 0xDA, 0xD9, 0xE1
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by the colour type of a PNG
_GREY_ALPHA, _RGBA = 4, 6
_PIXEL_CHUNKS = {b"PLTE", b"IDAT"}
_DEFLATE_RATIO = 1_032  # the largest that deflate reaches
_XMP = re.compile(rb"tiff:Orientation(?:=[\"']|>)([1-8])")
_ORIENTATION_TAG = 0x0112
_TRUNCATED = "the image is truncated or damaged"
_UNSUPPORTED = "not a JPEG, PNG, WebP, BMP, TIFF, GIF or AVIF image"


class Kind(Enum):
    """How a file is decoded."""

    JPEG = auto()
    CMYK_JPEG = auto()
    PNG = auto()
    GREY_ALPHA_16 = auto()
    """A 16-bit grey PNG with alpha, rewritten as an 8-bit RGBA one of the same bytes."""
    OTHER = auto()


@dataclass(slots=True)
class ImageFile:
    """A file to decode. ``data`` has no metadata if it is a JPEG or PNG; ``orientation`` is EXIF's, 1 to 8.

    ``simple`` files are decoded within some 20 ms. ``complete`` is whether a JPEG had an end marker, which is added.
    """

    kind: Kind
    data: bytes
    simple: bool = False
    orientation: int = 1
    complete: bool = True


def inspect(data: bytes, max_pixels: int) -> ImageFile:
    """Check a file before decoding it.

    Raises:
        ImageTypeUnsupported: the format is none of :data:`FORMATS`.
        ImageTooLarge: the header announces too many pixels or too much work.
        ImageRejected: the file is empty or truncated.
    """
    if not data:
        raise ImageRejected("the file is empty")
    if data.startswith(_JPEG):
        return _inspect_jpeg(data, max_pixels)
    if data.startswith(_PNG):
        return _inspect_png(data, max_pixels)
    if not _is_other_format(data):
        heic = data[4:8] == b"ftyp" and re.search(rb"hei[cfmsx]|hevc|mif1", data[8:64])
        raise ImageTypeUnsupported(f"{_UNSUPPORTED}; convert HEIC to JPEG" if heic else _UNSUPPORTED)
    if size := _peek_size(data):
        check_size(*size, max_pixels)
    return ImageFile(Kind.OTHER, data)


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Check the size of an image.

    Raises:
        ImageTooLarge: it has too many pixels, or a side is too long.
        ImageRejected: it has no pixels.
    """
    if not width or not height:
        raise ImageRejected("the image has no pixels")
    if width * height > max_pixels:
        raise ImageTooLarge(f"{width:,} × {height:,} pixels; at most {max_pixels:,} pixels are accepted")
    longest, shortest = max(width, height), min(width, height)
    if longest > MAX_SIDE or longest > MAX_ASPECT * shortest:
        raise ImageTooLarge(
            f"{width:,} × {height:,} pixels; sides of at most {MAX_SIDE:,} pixels and a ratio of at most "
            f"{MAX_ASPECT} are accepted"
        )


def pixel_count(data: bytes) -> int:
    """Return the pixels that a file's header announces, without checking the file; 0 if they are not found easily."""
    if data.startswith(_JPEG):
        frame = re.search(rb"\xff[\xc0-\xc2\xc9\xca]\x00.[\x08\x0c](....)", data[:65536], re.DOTALL)
        height, width = struct.unpack(">HH", frame[1]) if frame else (0, 0)
        return int(height * width)
    if data.startswith(_PNG) and len(data) >= 24:
        width, height = struct.unpack(">II", data[16:24])
        return int(height * width)
    width, height = _peek_size(data) or (0, 0)
    return width * height


def _inspect_jpeg(data: bytes, max_pixels: int) -> ImageFile:
    kept, position, fill, orientation = [data[:2]], 2, 0, 1
    frame: tuple[int, ...] | None = None
    for _ in range(MAX_SEGMENTS):
        if (marker := _MARKER.match(data, position)) is None:
            raise ImageRejected(_TRUNCATED)
        start = marker.end()
        code = data[start - 1]
        if (fill := fill + start - position - 2) > MAX_FILL_BYTES:
            raise ImageTooLarge(f"the file has more than {MAX_FILL_BYTES:,} fill bytes")
        if code == _SCAN:
            break
        if code == _END:
            raise ImageRejected(_TRUNCATED)
        position = start
        if code in _STANDALONE:
            continue
        position += int.from_bytes(data[start : start + 2], "big")
        if not start + 2 <= position <= len(data):
            raise ImageRejected(_TRUNCATED)
        if code in _FRAMES and position >= start + 8:
            frame = code, *struct.unpack(">BHHB", data[start + 2 : start + 8])
        if code == _APP1 and orientation == 1:
            orientation = _orientation(data[start + 2 : position])
        if code not in _METADATA:
            kept.append(data[start - 2 : position])
    else:
        raise ImageTooLarge(f"the file has more than {MAX_SEGMENTS:,} segments")
    if frame is None:
        raise ImageRejected(_TRUNCATED)
    code, precision, height, width, components = frame
    check_size(width, height, max_pixels)
    pixels = width * height
    if pixels > 64 * 8 * (len(data) - start):  # each block of 8 × 8 pixels takes a bit at least
        raise ImageRejected(_TRUNCATED)
    scans, end = _find_scans(data, start - 2, pixels)
    kept += [data[start - 2 : end + 2]] if end >= 0 else [data[start - 2 :], b"\xff\xd9"]
    simple = code in _SEQUENTIAL and precision == 8 and scans == 1 and pixels <= SMALL_PIXELS
    kind = Kind.JPEG if components in {1, 3} else Kind.CMYK_JPEG
    return ImageFile(kind, b"".join(kept), simple, orientation, complete=end >= 0)


def _find_scans(data: bytes, start: int, pixels: int) -> tuple[int, int]:
    """Return the number of scans of a JPEG, and the position of its end marker, -1 if it has none.

    Raises:
        ImageTooLarge: decoding all scans is too much work.
    """
    scans, most = 0, min(MAX_SCANS, max(1, MAX_SCAN_PIXELS // pixels))
    for marker in _SCAN_OR_END.finditer(data, start):
        if marker[0][1] == _END:
            return scans, marker.start()
        if (scans := scans + 1) > most:
            raise ImageTooLarge(f"more than {most:,} scans of {pixels:,} pixels, which is the most that is accepted")
    return scans, -1


def _inspect_png(data: bytes, max_pixels: int) -> ImageFile:
    if data[12:16] != b"IHDR" or len(data) < 33:
        raise ImageRejected(_TRUNCATED)
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", data[16:29])
    check_size(width, height, max_pixels)
    palette, pixels, orientation, position, plain = b"", [], 1, 33, True
    for _ in range(MAX_CHUNKS):
        length, name = int.from_bytes(data[position : position + 4], "big"), data[position + 4 : position + 8]
        content = data[position + 8 : position + 8 + length]
        if name in {b"IEND", b""}:
            break
        if name == b"PLTE":
            palette = content
        elif name == b"IDAT":
            pixels.append(content)
        elif name in {b"eXIf", b"iTXt"} and orientation == 1:
            orientation = _orientation(content)
        plain = plain and name in _PIXEL_CHUNKS
        position += 12 + length
    else:
        raise ImageTooLarge(f"the file has more than {MAX_CHUNKS:,} chunks")
    compressed = sum(map(len, pixels))
    row = (width * depth * _CHANNELS.get(colour, 1) + 7) // 8 + 1
    if height * row > _DEFLATE_RATIO * compressed + row:
        raise ImageRejected(_TRUNCATED)
    kind = Kind.GREY_ALPHA_16 if (depth, colour) == (16, _GREY_ALPHA) else Kind.PNG
    if kind is Kind.GREY_ALPHA_16:
        depth, colour = 8, _RGBA
    if not plain or not name or kind is Kind.GREY_ALPHA_16:
        header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
        chunks = [(b"IHDR", header), *([(b"PLTE", palette)] if palette else []), (b"IDAT", b"".join(pixels))]
        data = _PNG + b"".join(_chunk(*chunk) for chunk in [*chunks, (b"IEND", b"")])
    return ImageFile(kind, data, not interlaced and width * height <= SMALL_PIXELS, orientation)


def _chunk(name: bytes, content: bytes) -> bytes:
    checksum = 0 if name == b"IDAT" else zlib.crc32(name + content)  # Pillow does not check that of pixels
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)


def _orientation(metadata: bytes) -> int:
    """Return the orientation that EXIF or XMP metadata state, 1 if they are malformed or state none."""
    if xmp := _XMP.search(metadata):
        return int(xmp[1])
    exif = metadata.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        return 1
    try:
        (offset,) = struct.unpack_from(f"{order}I", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, offset)
        for entry in range(min(count, 1_000)):
            tag, kind, _, short, _ = struct.unpack_from(f"{order}HHIHH", exif, offset + 2 + 12 * entry)
            if tag == _ORIENTATION_TAG:
                return short if kind == 3 and 1 <= short <= 8 else 1
    except struct.error:
        pass
    return 1


def _is_other_format(data: bytes) -> bool:
    return (
        data.startswith((b"BM", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"GIF87a", b"GIF89a"))
        or (data[:4] == b"RIFF" and data[8:12] == b"WEBP")
        or (data[4:8] == b"ftyp" and re.search(rb"avi[fs]", data[8:64]) is not None)
    )


def _peek_size(data: bytes) -> tuple[int, int] | None:
    """Return the size in the header of a file that is neither JPEG nor PNG; None if it is not found easily."""
    try:
        if data.startswith(b"GIF8"):
            width, height = struct.unpack_from("<HH", data, 6)
        elif data.startswith(b"BM"):
            width, height = struct.unpack_from("<ii", data, 18)
        elif data[12:16] == b"VP8X":
            width = 1 + int.from_bytes(data[24:27], "little")
            height = 1 + int.from_bytes(data[27:30], "little")
        elif data[12:16] == b"VP8L":
            bits = int.from_bytes(data[21:25], "little")
            width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
        elif data[12:16] == b"VP8 ":
            width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
        elif data[4:8] == b"ftyp":
            sizes = re.findall(rb"ispe\0\0\0\0(....)(....)", data[:4096], re.DOTALL)
            width, height = max((struct.unpack(">II", b"".join(size)) for size in sizes), default=(0, 0))
        else:
            width, height = _peek_tiff(data)
    except struct.error:
        return None
    return (abs(width), abs(height)) if width and height else None


def _peek_tiff(data: bytes) -> tuple[int, int]:
    """Return the size of a TIFF's first image, zeros if it is not found easily."""
    order, size = ("<" if data[:2] == b"II" else ">"), {256: 0, 257: 0}
    (offset,) = struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}H", data, offset)
    for entry in range(min(count, 256)):
        tag, kind = struct.unpack_from(f"{order}HH", data, offset + 2 + 12 * entry)
        if tag in size:
            (size[tag],) = struct.unpack_from(order + ("H" if kind == 3 else "I"), data, offset + 10 + 12 * entry)
    return size[256], size[257]
