"""Comparison of rows: gains and their summary depend only on the results."""

from __future__ import annotations

from math import sqrt
from statistics import fmean, stdev

import pytest

from tests.training.evaluation.test_result import result_of
from training.evaluation.comparison import comparison
from training.evaluation.exclusion import Exclusion
from training.evaluation.protocol import Direction, ProtocolError, custom
from training.evaluation.result import Result

TO_VISIBLE, TO_INFRARED = (custom(d, Exclusion.SAME_ID_SAME_CAM) for d in (Direction.IR_TO_VIS, Direction.VIS_TO_IR))
MEASURED = {protocol.id: result_of(protocol) for protocol in (TO_VISIBLE, TO_INFRARED)}


def reaching(*maps: float, other: tuple[float, ...] | None = None) -> list[Result]:
    """Runs that reach these mAP, in percent, of infrared probes, and those of ``other`` or the same of visible ones."""
    return [
        measured.model_copy(
            update={
                "metrics": {
                    name: measure.model_copy(update={"mean": value / 100} if name == "map" else {})
                    for name, measure in measured.metrics.items()
                }
            }
        )
        for protocol, values in ((TO_VISIBLE, maps), (TO_INFRARED, maps if other is None else other))
        for measured in [MEASURED[protocol.id]]
        for value in values
    ]


def cells(table: str, row: str) -> dict[str, str]:
    """The cells of a row by their column; a gain's column is that of the metric before it."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line[:1] == "|"]
    (found,) = [line for line in lines if line[0] == row]
    names = [f"{lines[0][i - 1]} gain" if name == "gain" else name for i, name in enumerate(lines[0])]
    return dict(zip(names, found, strict=True))


def test_a_gain_is_shown_with_the_spread_and_whether_it_exceeds_it() -> None:
    base, near, far = (40.0, 42.0, 44.0), (43.0, 44.0, 45.0), (50.0, 51.0, 55.0)
    table = comparison({"base": reaching(*base), "near": reaching(*near), "far": reaching(*far)})
    for row, values, word in (("near", near, "within"), ("far", far, "beyond")):
        spread = sqrt(stdev(base) ** 2 + stdev(values) ** 2)
        expected = f"+{fmean(values) - fmean(base):.2f}, {word} {spread:.2f}"
        assert cells(table, row)[f"{TO_VISIBLE.id} mAP gain"] == expected
        assert cells(table, row)[f"{TO_INFRARED.id} mAP"] == f"{fmean(values):.2f} ± {stdev(values):.2f}"
        assert cells(table, row)[f"{TO_VISIBLE.id} R1 gain"] == "+0.00, within 0.00"
    assert cells(table, "base")[f"{TO_VISIBLE.id} mAP gain"] == "–"


def test_the_summary_of_a_row_is_valid_for_both_directions() -> None:
    rows = {
        "base": reaching(40, 41),
        "up": reaching(50, 51),
        "down": reaching(30, 31),
        "one way": reaching(50, 51, other=(30, 31)),
        "near": reaching(40.2, 41.2),
        "once": reaching(90),
    }
    assert (
        "mAP against base, by more than the spread of the runs under every protocol – "
        "better: up; worse: down; neither: one way, near; not known: once."
    ) in comparison(rows)


def test_one_run_shows_a_gain_and_no_spread() -> None:
    table = comparison({"base": reaching(40), "once": reaching(38.5)})
    assert cells(table, "once")[f"{TO_VISIBLE.id} mAP gain"] == "-1.50"
    assert "not known: once." in table


def test_chance_is_the_last_row_and_counts_are_below_the_table() -> None:
    results = reaching(40, 41)
    table = comparison({"base": results})
    chance = {r.protocol_id: 100 * r.metrics["chance_rank1"].mean for r in results}
    assert cells(table, "chance") == {
        "Row": "chance",
        "Seeds": "",
        **{f"{protocol.id} R1": f"{chance[protocol.id]:.2f}" for protocol in (TO_VISIBLE, TO_INFRARED)},
        **{f"{protocol.id} mAP": "–" for protocol in (TO_VISIBLE, TO_INFRARED)},
    }
    counts = results[0].counts[0]
    assert f"{TO_VISIBLE.id}: {counts.valid_queries} valid of {counts.queries} queries" in table
    assert "against" not in table


def test_different_numbers_of_evaluated_images_are_shown() -> None:
    one, other = reaching(40, 41, other=())
    fewer = other.counts[0].model_copy(update={"queries": 7, "valid_queries": 5})
    table = comparison({"base": [one, other.model_copy(update={"counts": (fewer,)})]})
    queries = [f"{c.valid_queries} valid of {c.queries} queries" for c in (one.counts[0], fewer)]
    line = table.strip().splitlines()[-1]
    assert all(count in line for count in queries)
    assert line.count(" or ") == 1


def test_each_data_set_has_a_separate_table() -> None:
    elsewhere = [
        r.model_copy(update={"data": r.data.model_copy(update={"name": "elsewhere"})}) for r in reaching(80, 81)
    ]
    first, second = comparison({"base": [*reaching(40, 41), *elsewhere]}).split("### ")[1:]
    assert first.startswith("drawn\n")
    assert second.startswith("elsewhere\n")
    assert "40.50" in first
    assert "80.50" in second
    assert "60.5" not in first + second


def test_no_result_is_an_error() -> None:
    with pytest.raises(ProtocolError, match="at least one"):
        comparison({"base": []})
