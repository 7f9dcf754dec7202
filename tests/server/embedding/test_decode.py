from __future__ import annotations

import io
import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from models.card import Modality
from server.domain.errors import ImageRejected, ImageTooLarge, ImageTypeUnsupported, ServiceError
from server.embedding.decode import decode_image, thumbnail
from server.embedding.depth import to_eight_bits
from server.embedding.resize import Pixels
from tests.drawing import draw_person
from tests.server.image_files import TEXT, encode, giant_png, truncated

PERSON = draw_person(7, Modality.VISIBLE, size=(96, 48))
LIMIT = 1_000_000
VECTORS = Path(__file__).parents[2] / "vectors" / "deep_infrared.json"


def decode(data: bytes) -> Pixels:
    return decode_image(data, max_pixels=LIMIT)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "JPEG", "WEBP", "TIFF", "AVIF", "GIF"])
def test_decoding_matches_pillow(kind: str) -> None:
    data = encode(PERSON, kind)
    oracle = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(decode(data), oracle)


@pytest.mark.parametrize(
    "options",
    [
        {"subsampling": "4:4:4"},
        {"subsampling": "4:2:2"},
        {"subsampling": "4:2:0"},
        {"progressive": True},
        {"optimize": True},
        {"restart_marker_blocks": 2},
        {"keep_rgb": True},
        {"comment": b"a comment"},
    ],
    ids=str,
)
def test_every_jpeg_variant_matches_pillow(options: dict[str, object]) -> None:
    whole = Image.fromarray(PERSON)
    for image in (whole, whole.crop((0, 0, 47, 95)), whole.convert("L"), whole.convert("CMYK")):
        data = encode(image, "JPEG", **options)
        oracle = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        np.testing.assert_array_equal(decode(data), oracle)


@pytest.mark.parametrize("sampling", range(0x11, 0x45))
def test_any_chroma_subsampling_matches_pillow_or_is_rejected(sampling: int) -> None:
    data = bytearray(encode(PERSON, "JPEG", subsampling="4:4:4"))
    data[data.index(b"\xff\xc0") + 11] = sampling
    try:
        oracle = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    except OSError:
        with pytest.raises(ServiceError):
            decode(bytes(data))
    else:
        np.testing.assert_array_equal(decode(bytes(data)), oracle)


def png(header: bytes, *chunks: tuple[bytes, bytes], end: bool = True) -> bytes:
    """Return a PNG file of chunks."""
    parts = [(b"IHDR", header), *chunks, *([(b"IEND", b"")] if end else [])]
    written = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(written)


def with_chunks(*chunks: tuple[bytes, bytes]) -> bytes:
    """Return a PNG of the person with chunks before its pixels."""
    file = encode(PERSON)
    inserted = png(file[16:29], *chunks, end=False)
    return inserted + file[33:]


def with_segments(*segments: bytes, options: dict[str, object] | None = None) -> bytes:
    """Return a JPEG of the person with segments, each with its marker, at its start."""
    file = encode(PERSON, "JPEG", **(options or {}))
    return file[:2] + b"".join(seg[:2] + struct.pack(">H", len(seg)) + seg[2:] for seg in segments) + file[2:]


EXIF = b"Exif\0\0II*\0\x08\0\0\0"
ENTRY = struct.Struct("<HHII")


@pytest.mark.parametrize(
    "exif",
    [
        b"",
        b"rubbish" * 100,
        EXIF,
        EXIF + b"\xff\xff",
        EXIF + b"\1\0" + ENTRY.pack(0x0112, 2, 4, 0x20202020),
        EXIF + b"\1\0" + ENTRY.pack(0x0112, 3, 1, 77),
        EXIF + b"\1\0" + ENTRY.pack(0x0112, 3, 1, 0),
        EXIF + b"\1\0" + ENTRY.pack(0x011A, 5, 1, 26) + struct.pack("<ii", -1, 0),
        EXIF + b"\1\0" + ENTRY.pack(0x8769, 4, 1, 0xFFFFFFFF),
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0MM\0*" + bytes(4),
    ],
    ids=ascii,
)
def test_malformed_exif_is_accepted(exif: bytes) -> None:
    np.testing.assert_array_equal(decode(with_segments(b"\xff\xe1" + exif)), decode(encode(PERSON, "JPEG")))
    np.testing.assert_array_equal(decode(with_chunks((b"eXIf", exif.removeprefix(b"Exif\0\0")))), PERSON)
    out = io.BytesIO()
    Image.fromarray(PERSON).save(out, "WEBP", lossless=True, exif=exif or b"x")
    np.testing.assert_array_equal(decode(out.getvalue()), PERSON)


def test_orientation_is_read_beside_malformed_entries() -> None:
    exif = EXIF + b"\2\0" + ENTRY.pack(0x0100, 5, 9, 0xFFFFFF) + ENTRY.pack(0x0112, 3, 1, 6)
    assert decode(with_segments(b"\xff\xe1" + exif)).shape == (48, 96, 3)
    assert decode(with_chunks((b"eXIf", exif[6:]))).shape == (48, 96, 3)


@pytest.mark.parametrize(
    "chunks",
    [
        [(b"iCCP", b"name\0\0" + zlib.compress(bytes(50 << 20)))],
        [(b"zTXt", b"key\0\0" + zlib.compress(bytes(50 << 20)))],
        [(b"tEXt", b"key\0" + bytes(2 << 20))],
        [(b"iTXt", b"rubbish")],
        [(b"iCCP", b"no profile")],
        [(b"gAMA", b"")],
        [(b"pHYs", b"x"), (b"tIME", b""), (b"cHRM", b"1")],
        [(b"tEXt", b"a\0b")] * 5_000,
        [(b"acTL", bytes(8)), (b"fcTL", b"")],
    ],
    ids=lambda chunks: f"{chunks[0][0]!r} {len(chunks)}",
)
def test_png_metadata_is_ignored(chunks: list[tuple[bytes, bytes]]) -> None:
    np.testing.assert_array_equal(decode(with_chunks(*chunks)), PERSON)


@pytest.mark.parametrize("chunk", [b"tEXt", b"IDAT"])
def test_wrong_checksums_do_not_matter(chunk: bytes) -> None:
    file = bytearray(with_chunks((b"tEXt", b"a\0b")))
    start = file.index(chunk)
    (length,) = struct.unpack(">I", file[start - 4 : start])
    file[start + 4 + length] ^= 1
    np.testing.assert_array_equal(decode(bytes(file)), PERSON)


@pytest.mark.parametrize("code", [b"\xff\xe1", b"\xff\xe2", b"\xff\xed", b"\xff\xfe", b"\xff\xe0"])
def test_jpeg_metadata_is_ignored(code: bytes) -> None:
    expected = decode(encode(PERSON, "JPEG"))
    for segments in ([code], [code + b"rubbish"], [code + bytes(60_000)] * 30, [code + b"x"] * 2_000):
        np.testing.assert_array_equal(decode(with_segments(*segments)), expected)


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"restart_marker_blocks": 2}, {"subsampling": "4:4:4"}], ids=str
)
def test_jpeg_without_an_end_marker_is_accepted(options: dict[str, object]) -> None:
    file = encode(PERSON, "JPEG", **options)
    np.testing.assert_array_equal(decode(file[:-2]), decode(file))
    for cut in (20, 200, 800):
        with pytest.raises(ImageRejected):
            decode(file[:-cut])
    np.testing.assert_array_equal(decode(file + b"trailer" * 1000), decode(file))
    np.testing.assert_array_equal(decode(file + encode(PERSON[::-1], "JPEG")), decode(file))


def test_png_without_an_end_chunk_is_decoded() -> None:
    np.testing.assert_array_equal(decode(encode(PERSON)[:-12]), PERSON)


@pytest.mark.parametrize("options", [{}, {"compression": "tiff_lzw"}, {"compression": "tiff_adobe_deflate"}], ids=str)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_a_tiff_is_applied_once(orientation: int, options: dict[str, object]) -> None:
    plain = encode(PERSON, "TIFF", **options)
    turned = encode(PERSON, "TIFF", tiffinfo={0x0112: orientation}, **options)
    upright = decode(turned)
    assert upright.shape == (PERSON.shape if orientation < 5 else (48, 96, 3))
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(upright, decode(encode(PERSON, "PNG", exif=exif)))
    np.testing.assert_array_equal(decode(plain), PERSON)


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "PNG", "WEBP"])
def test_first_frame_of_several_is_decoded(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    second = Image.fromarray(255 - PERSON)
    data = encode(PERSON, kind, save_all=True, append_images=[second], **options)
    np.testing.assert_array_equal(decode(data), decode(encode(PERSON, kind, **options)))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_modes_of_a_tiff_match_pillow(mode: str) -> None:
    image = Image.fromarray(PERSON).convert(mode)
    np.testing.assert_array_equal(decode(encode(image, "TIFF")), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    undo = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = np.ascontiguousarray(undo[orientation](PERSON))
    np.testing.assert_array_equal(decode(encode(turned, "PNG", exif=exif)), PERSON)
    jpeg = encode(turned, "JPEG", quality=95, exif=exif, subsampling="4:4:4")
    assert np.abs(decode(jpeg).astype(int) - PERSON).mean() < 3


def test_xmp_orientation_is_applied() -> None:
    data = encode(np.rot90(PERSON, 1), "JPEG", xmp=b'<x:xmpmeta xmlns:x="adobe:ns:meta/" tiff:Orientation="6"/>')
    assert decode(data).shape == PERSON.shape


def test_grey_is_replicated_to_three_channels() -> None:
    grey = PERSON[..., 0]
    np.testing.assert_array_equal(decode(encode(Image.fromarray(grey))), np.stack([grey] * 3, axis=-1))


def test_deep_grey_follows_the_shared_vectors(tmp_path: Path) -> None:
    for case in json.loads(VECTORS.read_text("utf-8")):
        if case["range"] is not None:
            continue  # only training knows the range of a frame
        values = [np.nan if value is None else float(value) for value in case["values"]]
        pixels = np.array(values).astype(case["dtype"]).reshape(case["shape"])
        expected = np.array(case["expected"], np.uint8).reshape(case["shape"])
        np.testing.assert_array_equal(to_eight_bits(pixels), expected, case["name"])
        files = [encode(Image.fromarray(pixels), "TIFF")]
        if case["dtype"] == "uint16":
            files += [encode(Image.fromarray(pixels)), encode(Image.fromarray(pixels), "TIFF", compression="tiff_lzw")]
        for file in files:
            np.testing.assert_array_equal(decode(file), np.stack([expected] * 3, axis=-1), case["name"])


def test_16_bit_grey_with_alpha_is_stretched_like_grey() -> None:
    deep = 29_000 + PERSON[..., 0].astype(np.uint16) * 5
    rows = np.stack([deep, np.full_like(deep, 65535)], axis=-1).astype(">u2").reshape(len(deep), -1)
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    height, width = deep.shape
    file = png(struct.pack(">IIBBBBB", width, height, 16, 4, 0, 0, 0), (b"IDAT", zlib.compress(raw)))
    np.testing.assert_array_equal(decode(file), decode(encode(Image.fromarray(deep))))


def test_deep_crops_keep_their_contrast() -> None:
    eight = PERSON[..., 1]
    low, high = np.percentile(eight, (1, 99))
    for scale, base in ((5, 29_000), (2, 7_600)):
        found = decode(encode(Image.fromarray((base + eight.astype(np.uint16) * scale).astype(np.uint16))))[..., 0]
        expected = np.clip((eight - low) / (high - low), 0, 1) * 255
        assert np.abs(found - expected).max() < 8


def test_transparency_is_dropped_and_palettes_are_resolved() -> None:
    alpha = np.concatenate([PERSON, np.full((*PERSON.shape[:2], 1), 7, np.uint8)], axis=-1)
    np.testing.assert_array_equal(decode(encode(Image.fromarray(alpha))), PERSON)
    palette = Image.fromarray(PERSON).quantize(16)
    np.testing.assert_array_equal(decode(encode(palette)), np.asarray(palette.convert("RGB")))


def test_animated_webp_yields_its_first_frame() -> None:
    second = Image.fromarray(255 - PERSON)
    data = encode(PERSON, "WEBP", lossless=True, save_all=True, append_images=[second])
    np.testing.assert_array_equal(decode(data), PERSON)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", ImageRejected),
        (truncated(), ImageRejected),
        (encode(np.zeros((1000, 1001, 3), np.uint8), "JPEG"), ImageTooLarge),
        (encode(PERSON)[:-200], ImageRejected),
        (TEXT, ImageTypeUnsupported),
        (b"\0\0\0\x18ftypheic" + bytes(100), ImageTypeUnsupported),
        (encode(PERSON, "PPM"), ImageTypeUnsupported),
        (encode(PERSON, "GIF")[:-300], ImageRejected),
        (encode(PERSON, "TIFF")[:300], ImageRejected),
        (encode(PERSON, "AVIF")[:300], ImageRejected),
        (giant_png(30_000, 30_000), ImageTooLarge),  # beyond Pillow's limit
        (giant_png(12_000, 8_000), ImageTooLarge),  # Pillow only warns
        (giant_png(1_001, 1_000), ImageTooLarge),  # only beyond our limit
    ],
    ids=[
        "empty",
        "jpeg-cut",
        "jpeg-large",
        "png-cut",
        "text",
        "heic",
        "ppm",
        "gif-cut",
        "tiff-cut",
        "avif-cut",
        "giant",
        "large",
        "one-row-too-much",
    ],
)
def test_unacceptable_file_is_rejected_with_a_safe_reason(data: bytes, error: type[ImageRejected]) -> None:
    with pytest.raises(ImageRejected) as caught:
        decode(data)
    assert type(caught.value) is error
    assert "/" not in caught.value.reason
    assert "0x" not in caught.value.reason


@settings(max_examples=150)
@given(st.sampled_from(["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "AVIF"]), st.data())
def test_damaged_file_is_decoded_or_rejected(kind: str, data: st.DataObject) -> None:
    damaged = bytearray(encode(PERSON, kind))
    for _ in range(data.draw(st.integers(1, 8))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        image = decode(bytes(damaged))
    except ImageRejected:
        return
    assert image.dtype == np.uint8
    assert image.shape[2:] == (3,)
    assert image.shape[0] * image.shape[1] <= LIMIT


@pytest.mark.parametrize("size", [(1024, 300), (300, 1024), (96, 48), (1, 4000)])
def test_thumbnail_fits_256_pixels_keeps_the_aspect_ratio_and_is_not_upscaled(size: tuple[int, int]) -> None:
    width, height = size
    small = Image.open(io.BytesIO(thumbnail(np.full((height, width, 3), (200, 30, 30), np.uint8))))
    scale = min(1.0, 256 / max(size))
    assert small.format == "JPEG"
    assert max(small.size) <= 256
    assert abs(small.width - width * scale) <= 1
    assert abs(small.height - height * scale) <= 1


def test_thumbnail_has_no_metadata() -> None:
    exif = Image.Exif()
    exif[0x010F] = "camera maker"
    data = encode(PERSON, "JPEG", exif=exif, comment=b"a comment", icc_profile=b"x" * 200)
    stored = thumbnail(decode(data))
    shown = Image.open(io.BytesIO(stored))
    shown.load()
    assert not shown.getexif()
    assert not {"exif", "icc_profile", "xmp", "comment"} & shown.info.keys()
    assert b"camera maker" not in stored
