from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from models.card import Modality
from server.embedding.modality import CHROMA_THRESHOLD, detect_modality, mean_chroma
from tests.drawing import draw_person
from tests.server.image_files import encode


def test_mean_chroma_is_the_mean_spread_of_the_channels() -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    spread = [max(map(int, pixel)) - min(map(int, pixel)) for row in pixels for pixel in row]
    assert mean_chroma(pixels) == pytest.approx(sum(spread) / len(spread))


@pytest.mark.parametrize("quality", [30, 75, 95])
@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
@pytest.mark.parametrize("modality", Modality)
def test_modality_is_detected_despite_compression(modality: Modality, kind: str, quality: int) -> None:
    for identity in range(10):
        data = encode(draw_person(identity, modality), kind, quality=quality)
        assert detect_modality(np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))) is modality


def test_chroma_equal_to_the_threshold_is_visible() -> None:
    pixels = np.zeros((2, 2, 3), np.uint8)
    pixels[0, :, 0] = round(2 * CHROMA_THRESHOLD)
    assert mean_chroma(pixels) == CHROMA_THRESHOLD
    assert detect_modality(pixels) is Modality.VISIBLE
