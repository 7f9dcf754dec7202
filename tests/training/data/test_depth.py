"""Images deeper than 8 bits: the shared test vectors, and unchanged 8-bit images."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from tests.vectors import deep_infrared
from training.data.depth import RULE, to_eight_bits

CASES = json.loads(deep_infrared.FILE.read_text("utf-8"))


def test_the_vectors_are_those_of_their_generator() -> None:
    assert deep_infrared.FILE.read_text("utf-8") == deep_infrared.text()
    assert (RULE.low, RULE.high) == deep_infrared.PERCENTILES


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_deep_images_become_the_levels_of_the_shared_vectors(case: dict[str, Any]) -> None:
    values = [math.nan if value is None else float(value) for value in case["values"]]
    image = np.array(values).astype(case["dtype"]).reshape(case["shape"])
    limits = tuple(case["range"]) if case["range"] else None
    levels = to_eight_bits(image, limits)
    assert levels.dtype == np.uint8
    assert levels.ravel().tolist() == case["expected"]


def test_eight_bit_images_are_unchanged() -> None:
    image = np.arange(100, 148, dtype=np.uint8).reshape(8, 6)
    assert (to_eight_bits(image) == image).all()
