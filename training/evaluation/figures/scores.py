"""Chart of the mAP of the rows of a study, with the spread of their runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev

from matplotlib.figure import Figure

from training.evaluation.result import Result

__all__ = ["draw_scores"]

_HEIGHT = 0.8  # of the bars of one data set and direction together, in units of the axis
_DIRECTIONS = (
    ("ir_to_vis", "infrared → visible"),
    ("vis_to_ir", "visible → infrared"),
    ("vis_to_vis", "visible → visible"),
)


def draw_scores(rows: Mapping[str, Sequence[Result]]) -> Figure:
    """Draw a group of bars for each data set and direction, with a bar for each row: mean mAP ± standard deviation.

    Args:
        rows: the results of all runs, by the name of their row.

    Raises:
        ValueError: there is no result.
    """
    values: dict[str, dict[str, list[float]]] = {}
    for row, results in rows.items():
        for result in results:
            group = f"{result.data.name}\n{_direction(result.protocol_id)}"
            values.setdefault(group, {}).setdefault(row, []).append(100 * result.metrics["map"].mean)
    if not values:
        raise ValueError("expected at least one result, found none")
    figure = Figure(figsize=(9, 0.9 + 0.55 * len(values)), layout="constrained")
    axes = figure.subplots()
    thickness = _HEIGHT / len(rows)
    for number, row in enumerate(rows):
        places = [place for place, group in enumerate(values) if row in values[group]]
        runs = [values[group][row] for group in values if row in values[group]]
        axes.barh(
            [place + thickness * (number - (len(rows) - 1) / 2) for place in places],
            [fmean(run) for run in runs],
            thickness,
            xerr=[stdev(run) if len(run) > 1 else 0.0 for run in runs],
            label=row,
        )
    axes.set_yticks(range(len(values)), labels=list(values), fontsize=7)
    axes.invert_yaxis()
    axes.set_xlabel("mAP in percent, mean ± standard deviation over the runs")
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    axes.legend(fontsize=8, loc="lower right")
    return figure


def _direction(protocol_id: str) -> str:
    return next((text for name, text in _DIRECTIONS if name in protocol_id), protocol_id)
