from __future__ import annotations

import numpy as np
import pytest

from models.card import Modality
from tests.drawing import draw_person
from training.data.images import Pixels
from training.data.misalignment import mirror_and_recrop
from training.data.seeding import generator_of
from training.data.translator import translate_by_name
from training.translation.channel import LUMA, ChannelTranslation


@pytest.fixture(scope="module")
def image() -> Pixels:
    return draw_person(3, Modality.VISIBLE, size=(64, 32))


@pytest.mark.parametrize("seed", range(20))
def test_the_image_equals_the_published_steps(image: Pixels, seed: int) -> None:
    result = ChannelTranslation()(image, np.random.default_rng(seed))
    draws = np.random.default_rng(seed)
    luma, channel, gamma = draws.random() < 0.25, int(draws.integers(3)), draws.uniform(0.7, 1.4)
    x = np.rint(image @ np.array(LUMA)) if luma else image[..., channel].astype(float)
    x = (x / 255) ** gamma
    low, high = np.percentile(x, (2, 98), method="inverted_cdf")
    x = np.clip((x - low) / max(high - low, 1e-3), 0, 1)
    assert (result == np.rint(x * 255)[..., None]).all()


def test_every_channel_and_luma_are_drawn(image: Pixels) -> None:
    plain = ChannelTranslation(gamma=(1, 1), percentiles=None)
    rng = np.random.default_rng(0)
    grey = {plain(image, rng)[..., 0].tobytes() for _ in range(60)}
    expected = {image[..., c].tobytes() for c in range(3)}
    expected.add(np.rint(image @ np.array(LUMA)).astype(np.uint8).tobytes())
    assert grey == expected


def test_a_flat_image_stays_finite() -> None:
    flat = np.full((8, 4, 3), 90, np.uint8)
    assert (ChannelTranslation()(flat, np.random.default_rng(0)) == 0).all()


def test_translation_by_name_is_reproducible_and_differs_between_names(image: Pixels) -> None:
    translator = ChannelTranslation()
    one, again, other = (translate_by_name(image, name, translator) for name in ("a.png", "a.png", "b.png"))
    assert (one == again).all()
    assert (one != other).any()
    assert generator_of("a").integers(1 << 30) != generator_of("a", seed=1).integers(1 << 30)


def test_mirror_and_recrop_depends_on_the_name_and_keeps_the_shape(image: Pixels) -> None:
    before = image.copy()
    one, again, other = (mirror_and_recrop(image, name) for name in ("a.png", "a.png", "b.png"))
    assert one.shape == image.shape
    assert (one == again).all()
    assert (one != other).any()
    assert (image == before).all()


def test_mirror_and_recrop_mirrors_and_cuts_at_most_12_percent_per_side() -> None:
    ramp = np.repeat(np.arange(0, 200, 2, dtype=np.uint8)[None, :, None], 50, axis=0).repeat(3, axis=2)
    lefts = []
    for name in map(str, range(200)):
        row = mirror_and_recrop(ramp, name)[25, :, 0].astype(int)
        assert (np.diff(row) <= 0).all()
        lefts.append(198 - row[0])
    assert max(lefts) <= 2 * 12
    assert max(lefts) > 2 * 10
    assert min(lefts) <= 2
