"""Decoding of image files as cameras and other tools write them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.card import Modality
from training.data.depth import to_eight_bits
from training.data.images import image_files, load, printable
from training.data.records import Record

RAW = (7600 + np.add.outer(np.arange(40), 5 * np.arange(20))).astype(np.uint16)


def record(path: Path, levels: tuple[float, float] | None = None) -> Record:
    return Record(path, "1", "1", Modality.INFRARED, levels=levels)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_sixteen_bit_infrared_is_stretched_over_its_percentiles(tmp_path: Path, name: str) -> None:
    Image.fromarray(RAW).save(tmp_path / name)
    image = load(record(tmp_path / name))
    assert (image == to_eight_bits(RAW)[..., None]).all()
    assert image.min() == 0
    assert image.max() == 255


def test_floating_point_tiff_is_stretched_over_its_percentiles(tmp_path: Path) -> None:
    Image.fromarray(RAW.astype(np.float32) / 100).save(tmp_path / "a.tiff")
    difference = load(record(tmp_path / "a.tiff"))[..., 0].astype(int) - to_eight_bits(RAW)
    assert abs(difference).max() <= 1


def test_the_range_of_the_frame_decides_the_levels(tmp_path: Path) -> None:
    Image.fromarray(RAW).save(tmp_path / "a.png")
    image = load(record(tmp_path / "a.png", (7000, 9000)))
    assert image[0, 0, 0] == round((7600 - 7000) / 2000 * 255)


@pytest.mark.parametrize("content", [b"", b"II*\0", b"\x89PNG\r\n\x1a\n" + bytes(20), b"BM" + bytes(60), b"text"])
def test_a_malformed_image_is_named_in_a_value_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.png: not a readable image"):
        load(record(tmp_path / "a.png"))


def test_an_image_with_malformed_exif_is_read(tmp_path: Path) -> None:
    Image.new("RGB", (20, 40), "red").save(tmp_path / "a.jpg", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert load(record(tmp_path / "a.jpg")).shape == (40, 20, 3)


@pytest.mark.parametrize(
    ("name", "mode", "options"),
    [("a.gif", "P", {}), ("a.avif", "RGB", {}), ("a.jfif", "CMYK", {"format": "JPEG"}), ("a.png", "1", {}),
     ("a.tif", "CMYK", {}), ("a.mpo.jpg", "RGB", {"format": "MPO"}), ("a.dib", "RGB", {}), ("a.webp", "RGBA", {}),
     ("a.png", "LA", {}), ("a.jpg", "L", {"icc_profile": b"no profile"})],
)  # fmt: skip
def test_every_kind_of_image_is_read_with_one_size(
    tmp_path: Path, name: str, mode: str, options: dict[str, object]
) -> None:
    Image.new("RGB", (20, 40), "white").convert(mode).save(tmp_path / name, **options)
    assert image_files(tmp_path) == [tmp_path / name]
    image = load(record(tmp_path / name))
    assert image.shape == (40, 20, 3)
    assert image.min() > 245


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "avif", "tif"])
def test_the_orientation_is_followed_in_every_format(tmp_path: Path, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20), "white").save(tmp_path / f"a.{suffix}", exif=exif)
    assert load(record(tmp_path / f"a.{suffix}")).shape == (40, 20, 3)


def test_a_name_that_is_not_utf8_is_printable() -> None:
    assert printable(Path(os.fsdecode(b"stra\xdfe.png"))) == r"stra\xdfe.png"
