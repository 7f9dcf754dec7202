"""Strong random translation: random mixture of the channels, gamma and inversion."""

from __future__ import annotations

import numpy as np
import pytest

from training.translation.mixed import MixedTranslation
from training.translation.statistics import StatisticsTranslation


def ramp() -> np.ndarray:
    """Red rises with the column; green and blue are dark."""
    image = np.zeros((4, 256, 3), np.uint8)
    image[..., 0] = np.arange(256)
    return image


def test_the_result_has_three_equal_channels_and_the_source_is_unchanged() -> None:
    image = ramp()
    made = MixedTranslation()(image, np.random.default_rng(0))
    assert made.shape == image.shape
    assert made.dtype == np.uint8
    assert (made == made[..., :1]).all()
    assert (image == ramp()).all()


@pytest.mark.parametrize("inversion", [0.0, 1.0])
def test_brightness_is_monotonic_and_reversed_by_inversion(inversion: float) -> None:
    grey = MixedTranslation(inversion=inversion)(ramp(), np.random.default_rng(1))[0, :, 0].astype(int)
    steps = np.diff(grey) * (1 if inversion == 0 else -1)
    assert (steps >= 0).all()
    assert steps.any()


def test_every_channel_and_both_signs_are_drawn() -> None:
    rng, translate = np.random.default_rng(2), MixedTranslation()
    flat = np.zeros((1, 1, 3), np.uint8)
    darks = {bool(translate(flat, rng)[0, 0, 0]) for _ in range(50)}
    assert darks == {False, True}
    colours = [np.array([[c]], np.uint8) for c in ([255, 0, 0], [0, 255, 0], [0, 0, 255])]
    plain = MixedTranslation(gamma=(1, 1), inversion=0)
    means = [np.mean([plain(colour, rng)[0, 0, 0] for _ in range(300)]) for colour in colours]
    assert all(60 < mean < 110 for mean in means)  # a third of 255 each


def test_low_frequencies_are_replaced_with_the_given_probability() -> None:
    dark = [np.full((8, 8), 3, np.uint8)]
    bright = np.full((8, 8, 3), 250, np.uint8)
    plain = MixedTranslation(gamma=(1, 1), inversion=0)
    for share in (0.0, 0.5, 1.0):
        translate, rng = StatisticsTranslation(dark, "amplitude", base=plain, share=share), np.random.default_rng(3)
        exchanged = np.mean([translate(bright, rng).mean() < 100 for _ in range(200)])
        assert abs(exchanged - share) < 0.1
