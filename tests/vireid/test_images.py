"""Images that the client accepts, and the content it sends for each."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.server.image_files import crop
from vireid.client import Client, InvalidRequest
from vireid.client.payloads import image_content

RANDOM = np.random.default_rng(0)


def decoded(content: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    return np.asarray(Image.open(io.BytesIO(content)))


def test_paths_bytes_and_open_files_are_sent_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "crop.png"
    path.write_bytes(crop(1))
    with path.open("rb") as file:
        assert {image_content(image) for image in (path, str(path), crop(1), file)} == {crop(1)}


@pytest.mark.parametrize(
    "pixels",
    [
        RANDOM.integers(0, 256, (9, 5, 3), np.uint8),
        RANDOM.integers(0, 256, (9, 5), np.uint8),
        RANDOM.integers(0, 2**16, (9, 5), np.uint16),
        RANDOM.integers(0, 256, (18, 10, 3), np.uint8)[::2, ::2],
    ],
)
def test_arrays_are_sent_without_loss(pixels: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> None:
    content = image_content(pixels)
    assert content.startswith(b"\x89PNG")
    np.testing.assert_array_equal(decoded(content), pixels)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_pillow_images_of_every_mode_are_sent(mode: str) -> None:
    image = Image.fromarray(RANDOM.integers(0, 256, (9, 5, 3), np.uint8)).convert(mode)
    sent = Image.open(io.BytesIO(image_content(image)))
    np.testing.assert_array_equal(np.asarray(sent.convert("RGB")), np.asarray(image.convert("RGB")))


def test_the_orientation_of_a_pillow_image_is_applied() -> None:
    image = Image.new("L", (4, 8))
    image.getexif()[0x0112] = 6  # rotated by 90 degrees
    assert decoded(image_content(image)).shape == (4, 8)


@pytest.mark.parametrize(
    "image",
    [np.zeros((9, 5, 4), np.uint8), np.zeros((9, 5), np.float32), np.zeros(9, np.uint8), Image.new("F", (5, 9)),
     io.StringIO("text")],
)  # fmt: skip
def test_an_image_of_another_type_or_shape_is_rejected(image: object) -> None:
    with pytest.raises(InvalidRequest, match="expected"):
        image_content(image)  # type: ignore[arg-type]


def test_an_array_and_its_file_have_the_same_embedding(client: Client) -> None:
    pixels = np.asarray(Image.open(io.BytesIO(crop(1))).convert("RGB"))
    vectors = client.embed([crop(1), pixels, Image.fromarray(pixels), io.BytesIO(crop(1))], "visible")
    np.testing.assert_array_equal(vectors[1:], vectors[:1].repeat(3, axis=0))
