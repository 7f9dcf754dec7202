"""A few steps of ``python -m tests.faults.machine``."""

from __future__ import annotations

import random

from tests.faults.machine import run


def test_the_gallery_api_behaves_like_a_dictionary() -> None:
    number = random.SystemRandom().randrange(2**32)
    print(f"seed {number}")  # noqa: T201
    run(examples=3, steps=40, number=number)
