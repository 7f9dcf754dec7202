from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.card import Modality
from tests.drawing import draw_person
from training.data.images import Pixels
from training.translation.channel import ChannelTranslation
from training.translation.statistics import StatisticsTranslation, load_infrared_images

PLAIN = ChannelTranslation(luma=1, gamma=(1, 1), percentiles=None)


@pytest.fixture(scope="module")
def image() -> Pixels:
    return draw_person(3, Modality.VISIBLE, size=(64, 32))


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_moments_are_those_of_the_reference(image: Pixels) -> None:
    reference = np.random.default_rng(1).normal(110, 9, (40, 30)).clip(0, 255).astype(np.uint8)
    made = StatisticsTranslation([reference], base=PLAIN)(image, rng())
    assert made.shape == image.shape
    assert (made == made[..., :1]).all()
    assert abs(made.mean() - reference.mean()) < 0.6
    assert abs(made[..., 0].std() - reference.std()) < 0.6
    grey = PLAIN(image, rng())[..., 0].astype(float)
    assert np.corrcoef(grey.ravel(), made[..., 0].ravel())[0, 1] > 0.99  # the structure is kept


def test_low_frequencies_come_from_the_reference_and_high_ones_from_the_image(image: Pixels) -> None:
    reference = draw_person(5, Modality.INFRARED, size=(64, 32))[..., 0]
    frequency = 0.05
    made = StatisticsTranslation([reference], "amplitude", frequency, PLAIN)._with_amplitude(
        PLAIN(image, rng())[..., 0] / 255, reference
    )
    spectra = [np.fft.fft2(x) for x in (made, PLAIN(image, rng())[..., 0] / 255, reference / 255)]
    for row in range(64):
        for column in range(32):
            fy, fx = min(row, 64 - row) / 64, min(column, 32 - column) / 32
            share = np.exp(-(fy**2 + fx**2) / (2 * frequency**2))
            expected = share * abs(spectra[2][row, column]) + (1 - share) * abs(spectra[1][row, column])
            assert abs(abs(spectra[0][row, column]) - expected) < 1e-6
    strong = abs(spectra[0]) > 1e-3
    assert abs(np.angle(spectra[0] / spectra[1]))[strong & (abs(spectra[1]) > 1e-3)].max() < 1e-6  # the phase is kept


@pytest.mark.parametrize("match", ["moments", "amplitude"])
def test_all_references_are_drawn_and_a_flat_image_stays_finite(match: str) -> None:
    references = [np.full((8, 8), level, np.uint8) for level in (40, 200)]
    references = [r + np.arange(8, dtype=np.uint8) for r in references]
    translate = StatisticsTranslation(references, match)  # type: ignore[arg-type]
    draws = rng()
    flat = np.full((16, 8, 3), 90, np.uint8)
    means = {round(float(translate(flat, draws).mean()), -1) for _ in range(20)}
    assert len(means) == 2


def test_references_are_spread_over_a_folder(tmp_path: Path) -> None:
    for number in range(10):
        (tmp_path / str(number)).mkdir()
        Image.fromarray(np.full((4, 4), number, np.uint8)).save(tmp_path / str(number) / "x.png")
    assert [int(p[0, 0]) for p in load_infrared_images(tmp_path, 4)] == [0, 3, 6, 9]
    assert len(load_infrared_images(tmp_path)) == 10
    with pytest.raises(FileNotFoundError, match="no image below it"):
        load_infrared_images(tmp_path / "none")
    with pytest.raises(ValueError, match="found none"):
        StatisticsTranslation([])
