"""Resizing compared with Pillow, the reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from models.card import InputSpec, Modality
from server.embedding import resize as module
from server.embedding.registry import load_embedders
from server.embedding.resize import Pixels, resize, scale, to_grey
from tests.drawing import draw_person

ZOO = Path(__file__).parents[3] / "models" / "zoo"
PERSON = draw_person(7, Modality.VISIBLE, size=(96, 48))


def pillow_resize(image: Pixels, width: int, height: int, kernel: str) -> Pixels:
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling[kernel.upper()]))


@pytest.mark.parametrize("kernel", ["bicubic", "lanczos"])
def test_resize_uses_the_pillow_filter_of_the_card(kernel: str) -> None:
    spec = InputSpec(height=64, width=32, resize=kernel)
    result = resize(PERSON, spec)
    assert (result.dtype, result.shape) == (np.uint8, (64, 32, 3))
    np.testing.assert_array_equal(result, pillow_resize(PERSON, 32, 64, kernel))


@settings(max_examples=100)
@given(
    st.integers(0, 2**32 - 1),
    st.tuples(st.integers(1, 300), st.integers(1, 300)),
    st.tuples(st.integers(1, 300), st.integers(1, 300)),
    st.sampled_from([(), (3,)]),
)
def test_bilinear_matches_pillow_within_two_levels_and_exactly_when_upscaling(
    seed: int, size: tuple[int, int], target: tuple[int, int], channels: tuple[int, ...]
) -> None:
    noise = np.random.default_rng(seed).integers(0, 256, (*size, *channels), np.uint8)
    found, reference = (way(noise, *target, "bilinear").astype(int) for way in (scale, pillow_resize))
    assert found.shape == reference.shape
    if target[0] > size[1] or target[1] > size[0]:
        np.testing.assert_array_equal(found, reference)
    assert np.abs(found - reference).max() <= 2
    assert found.size < 1000 or np.abs(found - reference).mean() < 0.5


def test_embeddings_agree_with_pillow_resizing() -> None:
    embedder = next(iter(load_embedders(ZOO, precision="fp32", device="cpu", threads=1).values()))
    spec = embedder.card.input
    for modality in Modality:
        for person in range(4):
            crop = draw_person(person, modality, size=(256, 128))
            pair = np.stack([way(crop, spec.width, spec.height, "bilinear") for way in (scale, pillow_resize)])
            first, second = embedder.embed(pair, np.full(2, modality.index, np.int64))
            assert first @ second > 0.9995


def test_pillow_is_the_fallback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "Resizer", None)
    np.testing.assert_array_equal(scale(PERSON, 32, 64, "bilinear"), pillow_resize(PERSON, 32, 64, "bilinear"))


def test_grey_matches_pillow_and_is_replicated() -> None:
    levels = to_grey(PERSON)
    np.testing.assert_array_equal(levels, np.asarray(Image.fromarray(PERSON).convert("L")))
    filled = resize(levels, InputSpec(height=64, width=32, resize="bilinear"))
    np.testing.assert_array_equal(filled, np.stack([scale(levels, 32, 64, "bilinear")] * 3, axis=-1))
