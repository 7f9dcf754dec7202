"""Crop warnings: none for a good crop of any size, and one per defect."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFilter

from models.card import InputSpec, Modality
from server.domain.types import CropWarning
from server.embedding.quality import MIN_BRIGHTNESS, crop_warnings
from tests.drawing import draw_person

SPEC = InputSpec(height=128, width=64, resize="bilinear")


def warnings_of(image: Image.Image, spec: InputSpec) -> frozenset[CropWarning]:
    return crop_warnings(np.asarray(image), spec)


def person(identity: int, modality: Modality = Modality.VISIBLE, height: int = 256) -> Image.Image:
    return Image.fromarray(draw_person(identity, modality, size=(256, 128))).resize((height // 2, height))


def textured(width: int, height: int, brightness: float = 1.0) -> Image.Image:
    """Return a sharp random texture."""
    draw = np.random.default_rng(0).integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8)
    return Image.fromarray((np.kron(draw, np.ones((4, 4, 1))) * brightness).astype(np.uint8))


@pytest.mark.parametrize("modality", Modality)
def test_good_crop_of_any_size_has_no_warning(modality: Modality) -> None:
    for identity in range(3):
        for height in (128, 200, 640):
            assert not warnings_of(person(identity, modality, height), SPEC)


def test_too_small_below_a_quarter_of_the_input_pixels() -> None:
    assert CropWarning.TOO_SMALL not in warnings_of(textured(32, 64), SPEC)
    assert CropWarning.TOO_SMALL in warnings_of(textured(28, 64), SPEC)
    larger = InputSpec(height=256, width=128, resize="bilinear")
    assert CropWarning.TOO_SMALL in warnings_of(textured(32, 64), larger)


@pytest.mark.parametrize(
    ("width", "height", "warned"), [(64, 64, True), (64, 76, True), (64, 80, False), (64, 320, False), (64, 324, True)]
)
def test_unusual_aspect_ratio_is_reported(width: int, height: int, warned: bool) -> None:
    assert (CropWarning.NOT_PERSON_SHAPED in warnings_of(textured(width, height), SPEC)) is warned


def test_too_dark_ignores_small_bright_spots() -> None:
    dark = np.asarray(textured(64, 128, 0.15)).copy()
    assert warnings_of(Image.fromarray(dark), SPEC) == {CropWarning.TOO_DARK}
    dark[:20, :10] = 255  # a lamp: 2 % of the image
    assert CropWarning.TOO_DARK in warnings_of(Image.fromarray(dark), SPEC)
    dark[:40, :20] = 255  # 10 % of the image
    assert CropWarning.TOO_DARK not in warnings_of(Image.fromarray(dark), SPEC)
    for grey, warned in ((MIN_BRIGHTNESS - 1, True), (MIN_BRIGHTNESS, False)):
        flat = Image.new("RGB", (64, 128), (grey, grey, grey))
        assert (CropWarning.TOO_DARK in warnings_of(flat, SPEC)) is warned


@pytest.mark.parametrize("brightness", [1.0, 0.4])
@pytest.mark.parametrize("height", [128, 320, 640])
def test_blur_is_detected_at_any_size_and_brightness(height: int, brightness: float) -> None:
    sharp = person(3, height=height).point(lambda value: round(value * brightness))
    assert CropWarning.BLURRED not in warnings_of(sharp, SPEC)
    assert CropWarning.BLURRED in warnings_of(sharp.filter(ImageFilter.GaussianBlur(height / 25)), SPEC)


def test_low_contrast_is_not_blur() -> None:
    assert not warnings_of(person(3).point(lambda value: 110 + value // 16), SPEC)


@pytest.mark.parametrize("axis", [0, 1])
def test_motion_blur_in_one_direction_is_detected(axis: int) -> None:
    """Edges perpendicular to the motion stay sharp."""
    sharp = np.asarray(person(3))
    blurred = np.mean([np.roll(sharp, step, axis) for step in range(48)], axis=0).astype(np.uint8)
    other = 1 - axis
    assert np.diff(blurred.astype(int), axis=other).var() > 3 * np.diff(blurred.astype(int), axis=axis).var()
    assert warnings_of(Image.fromarray(blurred), SPEC) == {CropWarning.BLURRED}


def test_uniform_image_counts_as_blurred() -> None:
    assert warnings_of(Image.new("RGB", (64, 128), (120, 120, 120)), SPEC) == {CropWarning.BLURRED}
