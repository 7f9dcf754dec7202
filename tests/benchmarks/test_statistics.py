"""Statistics of the benchmarks."""

from __future__ import annotations

import pytest

from benchmarks.harness.statistics import alternate, difference, percentile, ratio, sample


def test_ratio_is_computed_per_round() -> None:
    found = ratio("a / b", [2.0, 30.0, 8.0], [1.0, 10.0, 2.0], "at least", 3.0)
    assert (found.value, found.low, found.high) == (3.0, 2.0, 4.0)
    assert found.kept
    assert not ratio("a / b", [2.0], [1.0], "at least", 2.5).kept
    assert ratio("a / b", [2.0], [1.0], "at most", 2.5).kept


def test_difference_is_computed_per_round() -> None:
    found = difference("a - b", [5.0, 9.0], [4.0, 3.0], "at most", 3.0)
    assert (found.value, found.low, found.high, found.kept) == (3.5, 1.0, 6.0, False)
    assert found.as_json()["limit"] == 3.0


@pytest.mark.parametrize(("above", "below"), [([], []), ([1.0], [1.0, 2.0])])
def test_unequal_numbers_of_rounds_are_rejected(above: list[float], below: list[float]) -> None:
    with pytest.raises(ValueError, match="same rounds"):
        ratio("a / b", above, below, "at least", 1.0)


def test_alternate_reverses_every_second_round() -> None:
    order: list[str] = []

    def call(name: str) -> int:
        order.append(name)
        return len(order)

    found = alternate({name: lambda name=name: call(name) for name in "abc"}, 2)
    assert "".join(order) == "abccba"
    assert found == {"a": [1, 6], "b": [2, 5], "c": [3, 4]}


def test_percentile_is_a_measured_value() -> None:
    values = [float(value) for value in range(100, 0, -1)]
    assert [percentile(values, percent) for percent in (0, 50, 95, 99, 100)] == [1, 50, 95, 99, 100]
    assert percentile([7.0], 99) == 7.0
    with pytest.raises(ValueError, match="at least one"):
        percentile([], 50)


def test_sample_makes_the_minimum_number_of_calls() -> None:
    calls: list[None] = []
    assert len(sample(lambda: calls.append(None), 0, least=4)) == len(calls) == 4
