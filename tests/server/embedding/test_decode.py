from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from models.card import Modality
from server.embedding.decode import open_upright, thumbnail
from server.embedding.resize import Pixels
from server.errors import ImageRejected, ImageTooLarge, ImageTypeUnsupported, ServiceError
from tests.drawing import draw_person
from tests.server.pictures import TEXT, encode, giant_png, truncated

PERSON = draw_person(7, Modality.VISIBLE, size=(96, 48))
LIMIT = 1_000_000


def opened(data: bytes) -> Pixels:
    return open_upright(data, max_pixels=LIMIT)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "JPEG", "WEBP"])
def test_a_picture_decodes_to_what_pillow_decodes(kind: str) -> None:
    data = encode(PERSON, kind)
    oracle = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(opened(data), oracle)


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
        {"comment": b"taken at home"},
    ],
    ids=str,
)
def test_every_kind_of_jpeg_decodes_to_what_pillow_decodes(options: dict[str, object]) -> None:
    whole = Image.fromarray(PERSON)
    for picture in (whole, whole.crop((0, 0, 47, 95)), whole.convert("L"), whole.convert("CMYK")):
        data = encode(picture, "JPEG", **options)
        oracle = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        np.testing.assert_array_equal(opened(data), oracle)


@pytest.mark.parametrize("sampling", range(0x11, 0x45))
def test_any_sampling_of_colours_is_read_as_pillow_reads_it_or_refused(sampling: int) -> None:
    data = bytearray(encode(PERSON, "JPEG", subsampling="4:4:4"))
    data[data.index(b"\xff\xc0") + 11] = sampling
    try:
        oracle = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    except OSError:
        with pytest.raises(ServiceError):
            opened(bytes(data))
    else:
        np.testing.assert_array_equal(opened(bytes(data)), oracle)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_turns_the_picture_upright(orientation: int) -> None:
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
    np.testing.assert_array_equal(opened(encode(turned, "PNG", exif=exif)), PERSON)
    photograph = encode(turned, "JPEG", quality=95, exif=exif, subsampling="4:4:4")
    assert np.abs(opened(photograph).astype(int) - PERSON).mean() < 3


def test_an_orientation_that_only_xmp_tells_turns_a_jpeg_too() -> None:
    data = encode(np.rot90(PERSON, 1), "JPEG", xmp=b'<x:xmpmeta xmlns:x="adobe:ns:meta/" tiff:Orientation="6"/>')
    assert opened(data).shape == PERSON.shape


def test_grey_is_replicated_to_three_channels() -> None:
    grey = PERSON[..., 0]
    np.testing.assert_array_equal(opened(encode(Image.fromarray(grey))), np.stack([grey] * 3, axis=-1))


def test_of_sixteen_bit_grey_the_high_byte_is_kept() -> None:
    deep = (PERSON[..., 0].astype(np.uint16) << 8) + 129
    np.testing.assert_array_equal(opened(encode(Image.fromarray(deep)))[..., 1], PERSON[..., 0])


def test_transparency_is_dropped_and_palettes_are_resolved() -> None:
    alpha = np.concatenate([PERSON, np.full((*PERSON.shape[:2], 1), 7, np.uint8)], axis=-1)
    np.testing.assert_array_equal(opened(encode(Image.fromarray(alpha))), PERSON)
    palette = Image.fromarray(PERSON).quantize(16)
    np.testing.assert_array_equal(opened(encode(palette)), np.asarray(palette.convert("RGB")))


def test_of_an_animation_the_first_frame_is_taken() -> None:
    second = Image.fromarray(255 - PERSON)
    data = encode(PERSON, "WEBP", lossless=True, save_all=True, append_images=[second])
    np.testing.assert_array_equal(opened(data), PERSON)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", ImageRejected),
        (truncated(), ImageRejected),
        (encode(np.zeros((1000, 1001, 3), np.uint8), "JPEG"), ImageTooLarge),
        (encode(PERSON)[:-200], ImageRejected),
        (TEXT, ImageTypeUnsupported),
        (encode(PERSON, "GIF"), ImageTypeUnsupported),
        (encode(PERSON, "TIFF"), ImageTypeUnsupported),
        (giant_png(30_000, 30_000), ImageTooLarge),  # beyond Pillow's own limit
        (giant_png(12_000, 8_000), ImageTooLarge),  # where Pillow only warns
        (giant_png(1_001, 1_000), ImageTooLarge),  # beyond ours alone
    ],
    ids=["empty", "jpeg-cut", "jpeg-large", "png-cut", "text", "gif", "tiff", "giant", "large", "one-row-too-much"],
)
def test_an_unacceptable_file_is_refused_with_a_reason_of_ours(data: bytes, error: type[ImageRejected]) -> None:
    with pytest.raises(ImageRejected) as caught:
        opened(data)
    assert type(caught.value) is error
    assert "/" not in caught.value.reason
    assert "0x" not in caught.value.reason


@settings(max_examples=150)
@given(st.sampled_from(["PNG", "JPEG", "WEBP", "BMP"]), st.data())
def test_a_damaged_file_is_decoded_or_refused_and_nothing_else(kind: str, data: st.DataObject) -> None:
    damaged = bytearray(encode(PERSON, kind))
    for _ in range(data.draw(st.integers(1, 8))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        image = opened(bytes(damaged))
    except ImageRejected:
        return
    assert image.dtype == np.uint8
    assert image.shape[2:] == (3,)
    assert image.shape[0] * image.shape[1] <= LIMIT


@pytest.mark.parametrize("size", [(1024, 300), (300, 1024), (96, 48), (1, 4000)])
def test_a_thumbnail_fits_256_keeps_the_shape_and_never_grows(size: tuple[int, int]) -> None:
    width, height = size
    small = Image.open(io.BytesIO(thumbnail(np.full((height, width, 3), (200, 30, 30), np.uint8))))
    scale = min(1.0, 256 / max(size))
    assert small.format == "JPEG"
    assert max(small.size) <= 256
    assert abs(small.width - width * scale) <= 1
    assert abs(small.height - height * scale) <= 1


def test_a_thumbnail_carries_no_metadata() -> None:
    exif = Image.Exif()
    exif[0x010F] = "camera maker"
    data = encode(PERSON, "JPEG", exif=exif, comment=b"taken at home", icc_profile=b"x" * 200)
    stored = thumbnail(opened(data))
    shown = Image.open(io.BytesIO(stored))
    shown.load()
    assert not shown.getexif()
    assert not {"exif", "icc_profile", "xmp", "comment"} & shown.info.keys()
    assert b"camera maker" not in stored
