"""False match rates as the commands print them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vireid.cli.rates import describe_used, false_hits_text, rate_text
from vireid.client import CalibrationUsed, Modality


@pytest.mark.parametrize(
    ("rate", "below", "text"),
    [(None, False, ""), (0.0123, False, "1.23%"), (1 / 15500, True, "< 1/15,500"), (2e-6, False, "2e-06")],
)
def test_a_rate_is_printed_as_measured(rate: float | None, below: bool, text: str) -> None:
    assert rate_text(rate, below) == text


@pytest.mark.parametrize(
    ("expected", "below", "text"),
    [(None, False, ""), (4.81, False, "4.8"), (1234.5, False, "1,234"), (0.2, True, "< 0.2")],
)
def test_expected_false_hits_are_printed_with_two_digits(expected: float | None, below: bool, text: str) -> None:
    assert false_hits_text(expected, below) == text


@given(st.integers(2, 10**9))
def test_no_rate_is_printed_as_zero(pairs: int) -> None:
    assert rate_text(1 / pairs, True) == f"< 1/{pairs:,}"
    assert float(rate_text(1 / pairs, False).rstrip("%")) > 0


def test_a_calibration_on_translated_crops_is_not_called_real() -> None:
    used = CalibrationUsed(
        data="shop (infrared translated from visible crops)",
        real=False,
        query=Modality.VISIBLE,
        gallery=Modality.INFRARED,
        impostor_pairs=1000,
        identities=50,
        interval=0.95,
        source="model",
        version=None,
    )
    text = describe_used(used)
    assert "1,000 pairs of different people of 50 people" in text
    assert "not on real infrared crops" in text
    assert describe_used(used.model_copy(update={"real": True})).endswith("; real crops")
