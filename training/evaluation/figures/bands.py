"""Training curves of several rows in one figure, with the runs of a row as a band."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from training.evaluation.figures.curves import Log

__all__ = ["draw_bands"]

_COLUMNS = 3


def draw_bands(rows: Mapping[str, Sequence[Log]]) -> Figure:
    """Draw the loss and each validation mAP over the epochs in separate panels, each with all rows.

    A line is the mean of a row's runs, its band the range from the lowest to the highest.

    Args:
        rows: the logs of all runs by row. Only the columns ``loss`` and ``…/map`` are drawn.

    Raises:
        ValueError: there is nothing to draw.
    """
    columns = sorted({c for logs in rows.values() for log in logs for c in log if c == "loss" or c.endswith("/map")})
    if not columns:
        raise ValueError(f"expected a column loss or …/map in the logs, found none in those of {list(rows)}")
    columns.sort(key=lambda column: column != "loss")
    lines = ceil(len(columns) / _COLUMNS)
    figure = Figure(figsize=(4.4 * min(len(columns), _COLUMNS), 2.9 * lines + 0.4), layout="constrained")
    grid = figure.subplots(lines, min(len(columns), _COLUMNS), squeeze=False).ravel()
    for axes, column in zip(grid, columns, strict=False):
        for (row, logs), colour in zip(rows.items(), _colours(len(rows)), strict=True):
            _draw(axes, row, [log for log in logs if column in log], column, colour)
        axes.set_title(_title(column), fontsize=9)
        axes.set_xlabel("epoch", fontsize=8)
        axes.set_xlim(left=min(0, axes.get_xlim()[0]))  # also with a single epoch
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.3)
    for axes in grid[len(columns) :]:
        axes.axis("off")
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    return figure


def _draw(axes: Axes, row: str, logs: Sequence[Log], column: str, colour: tuple[float, ...]) -> None:
    found: dict[float, list[float]] = {}
    for log in logs:
        for epoch, value in zip(log["epoch"], log[column], strict=True):
            if np.isfinite(value):
                found.setdefault(float(epoch), []).append(float(value))
    epochs = sorted(found)
    low, mean, high = ([float(of(found[epoch])) for epoch in epochs] for of in (np.min, np.mean, np.max))
    axes.plot(epochs, mean, marker=".", linewidth=1.4, color=colour, label=row)
    if low != high:
        axes.fill_between(epochs, low, high, color=colour, alpha=0.2, linewidth=0)
        axes.vlines(epochs, low, high, color=colour, alpha=0.6, linewidth=1)  # the band of a single epoch has no width


def _colours(count: int) -> list[tuple[float, ...]]:
    return [colormaps["tab10" if count <= 10 else "tab20"](number % 20) for number in range(count)]


def _title(column: str) -> str:
    if column == "loss":
        return "training loss"
    data, direction, _ = column.rsplit("/", 2)
    return f"{data}\nmAP, {direction.replace('_', ' ')}"
