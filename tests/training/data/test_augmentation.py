from __future__ import annotations

import numpy as np
import pytest

from models.card import Modality
from tests.drawing import draw_person
from training.data.augmentation import Augmentation, Geometry, Role, Stream
from training.data.images import Pixels
from training.translation.channel import LUMA, ChannelTranslation

BARE = Augmentation(erasing=0, infrared_gain=(1, 1), infrared_offset=(0, 0), transition=ChannelTranslation())


@pytest.fixture(scope="module")
def image() -> Pixels:
    return draw_person(3, Modality.VISIBLE, size=(72, 36))


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("stream", Stream)
def test_the_source_image_is_not_modified(image: Pixels, stream: Stream) -> None:
    before = image.copy()
    frozen = image.copy()
    frozen.flags.writeable = False
    for seed in range(20):
        draws = rng(seed)
        aug = Augmentation(erasing=1, transition=ChannelTranslation())
        view = aug.view(frozen, stream, aug.draw_geometry(frozen.shape, draws), draws)
        assert view.dtype == np.uint8
        assert view.shape == image.shape
        assert not np.shares_memory(view, frozen)
        assert (frozen == before).all()


def test_a_crop_of_the_padded_image_equals_a_loop(image: Pixels) -> None:
    margin = round(10 / 288 * 72)
    for seed in range(10):
        draws = rng(seed)
        place = BARE.draw_geometry(image.shape, draws)
        view = BARE.view(image, Stream.VISIBLE, place, draws)
        for y in range(72):
            for x in range(36):
                source_y = y + place.top - margin
                source_x = (35 - x if place.flip else x) + place.left - margin
                inside = 0 <= source_y < 72 and 0 <= source_x < 36
                expected = image[source_y, source_x] if inside else np.zeros(3)
                assert (view[y, x] == expected).all()


def test_geometry_covers_the_padding_and_flips_half() -> None:
    draws = rng()
    places = [BARE.draw_geometry((288, 144, 3), draws) for _ in range(2000)]
    assert {p.top for p in places} == {p.left for p in places} == set(range(21))
    assert 900 < sum(p.flip for p in places) < 1100


def test_exchange_copies_one_channel_into_all(image: Pixels) -> None:
    place = Geometry(3, 1, flip=True)
    v = BARE.view(image, Stream.VISIBLE, place, rng())
    drawn = set()
    for seed in range(30):
        exchanged = BARE.view(image, Stream.EXCHANGED, place, rng(seed))
        match = [c for c in range(3) if (exchanged == v[..., [c]]).all()]
        assert len(match) == 1
        drawn.add(match[0])
    assert drawn == {0, 1, 2}


def test_a_transition_is_a_channel_mix_of_v_pixel_by_pixel(image: Pixels) -> None:
    aug = Augmentation(erasing=0, transition=ChannelTranslation(gamma=(1, 1), percentiles=None))
    for seed in range(20):
        draws = rng(seed)
        place = aug.draw_geometry(image.shape, draws)
        v = aug.view(image, Stream.VISIBLE, place, draws)
        t = aug.view(image, Stream.TRANSITION, place, draws)
        mixes = [v[..., 0], v[..., 1], v[..., 2], np.rint(v @ np.array(LUMA)).astype(np.uint8)]
        assert any((t == mix[..., None]).all() for mix in mixes)


def test_infrared_changes_gain_and_offset_within_the_range() -> None:
    grey = np.repeat(np.arange(40, 216, dtype=np.uint8).reshape(16, 11, 1), 3, axis=2)
    place = Geometry(0, 0, flip=False)
    for seed in range(20):
        view = Augmentation(pad=0, erasing=0).view(grey, Stream.INFRARED, place, rng(seed)).astype(int)
        assert (view[..., 0] == view[..., 1]).all()
        assert (view[..., 0] == view[..., 2]).all()
        assert abs(view - grey.astype(int)).max() <= 18 + 0.02 * 128 + 1
        gain = np.polyfit(grey[..., 0].ravel(), view[..., 0].ravel(), 1)[0]
        assert 0.975 < gain < 1.025


@pytest.mark.parametrize("stream", Stream)
def test_an_erased_region_is_a_rectangle_of_the_mean_colour(stream: Stream) -> None:
    bright = np.full((100, 50, 3), 250, np.uint8)
    aug = Augmentation(pad=0, erasing=1, infrared_offset=(0, 0), transition=lambda image, rng: image.copy())
    for seed in range(50):
        view = aug.view(bright, stream, Geometry(0, 0, flip=False), rng(seed))
        erased = (view == aug.fill).all(2)
        rows, columns = np.flatnonzero(erased.any(1)), np.flatnonzero(erased.any(0))
        assert erased[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        assert erased.sum() == len(rows) * len(columns)
        assert 0.015 < erased.mean() < 0.42
        assert 0.25 < len(rows) / len(columns) < 4


def test_erasing_has_its_probability(image: Pixels) -> None:
    draws = rng()
    aug = Augmentation(pad=0, flip=0)
    same = [(aug.view(image, Stream.VISIBLE, Geometry(0, 0, flip=False), draws) == image).all() for _ in range(1000)]
    assert 430 < sum(same) < 570


def test_roles_and_stems_of_the_streams() -> None:
    assert [(int(s.role), s.stem.index) for s in Stream] == [(0, 0), (0, 0), (1, 1), (2, 1)]
    assert [*Role] == [0, 1, 2]


def test_cuts_are_below_their_maximum_and_the_rest_fills_the_image() -> None:
    rows, columns = np.indices((64, 32))
    ramp = np.stack([4 * rows, 8 * columns, 0 * rows], 2).clip(0, 255).astype(np.uint8)
    aug = Augmentation(erasing=0, pad=0, flip=0, cut=0.25)
    edges = []
    for seed in range(200):
        draws = rng(seed)
        view = aug.view(ramp, Stream.VISIBLE, aug.draw_geometry(ramp.shape, draws), draws).astype(int)
        edges.append([view[0, 0, 0] / 4, 63 - view[-1, 0, 0] / 4, view[0, 0, 1] / 8 * 2, 2 * (31 - view[0, -1, 1] / 8)])
    cut = np.array(edges)
    assert cut.max() <= 0.25 * 64 + 0.5
    assert (cut.max(0) > 12).all()
    assert (abs(np.corrcoef(cut.T) - np.eye(4)) < 0.3).all()  # the sides are drawn independently


def test_a_transition_has_the_same_cuts_as_its_source(image: Pixels) -> None:
    aug = Augmentation(
        erasing=0, pad=0, cut=0.25, transition=ChannelTranslation(luma=0, gamma=(1, 1), percentiles=None)
    )
    for seed in range(10):
        draws = rng(seed)
        place = aug.draw_geometry(image.shape, draws)
        v = aug.view(image, Stream.VISIBLE, place, draws)
        t = aug.view(image, Stream.TRANSITION, place, draws)
        assert min(abs(t[..., 0].astype(int) - v[..., c]).max() for c in range(3)) == 0
