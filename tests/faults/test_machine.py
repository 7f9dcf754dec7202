"""A few steps of ``python -m tests.faults.machine``."""

from __future__ import annotations

import random

from tests.faults.machine import run


def test_the_api_of_galleries_does_what_a_dictionary_does() -> None:
    number = random.SystemRandom().randrange(2**32)
    print(f"seed {number}")  # noqa: T201
    run(examples=3, steps=40, number=number)
