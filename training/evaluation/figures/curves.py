"""Training curves from the CSV logs of a run."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from math import ceil
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

__all__ = ["Log", "draw_curves", "read_log"]

Log = Mapping[str, NDArray[np.float64]]
"""Columns of equal length, one of them ``epoch``; NaN for empty cells."""

_COLUMNS = 3


def read_log(path: Path) -> dict[str, NDArray[np.float64]]:
    """Read the numeric columns of a log, one of which is ``epoch``.

    Raises:
        OSError: the file cannot be read.
        ValueError: it has no row, or no column ``epoch``.
    """
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows or "epoch" not in rows[0]:
        raise ValueError(f"{path}: expected rows with a column epoch, found {list(rows[0]) if rows else 'no row'}")
    columns = {}
    for name in rows[0]:
        try:
            columns[name] = np.array([float(row[name] or "nan") for row in rows])
        except ValueError:
            continue
    return columns


def draw_curves(logs: Mapping[str, Log]) -> Figure:
    """Draw a panel for each quantity over the epochs.

    Args:
        logs: by name (``training``, ``validation``). Columns named ``DATA SET/DIRECTION/map`` share the panel ``map``.

    Raises:
        ValueError: there is nothing to draw.
    """
    panels: dict[str, dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]] = {}
    for log_name, log in logs.items():
        for column in sorted(log.keys() - {"epoch", "step"}):
            series, _, kind = column.rpartition("/")
            panels.setdefault(f"{log_name}: {kind}", {})[series] = log["epoch"], log[column]
    if not panels:
        raise ValueError(f"expected columns other than epoch and step, found none in {list(logs)}")
    lines = ceil(len(panels) / _COLUMNS)
    figure = Figure(figsize=(4.4 * min(len(panels), _COLUMNS), 2.9 * lines), layout="constrained")
    grid = figure.subplots(lines, min(len(panels), _COLUMNS), squeeze=False).ravel()
    for axes, (title, curves) in zip(grid, panels.items(), strict=False):
        _draw(axes, title, curves)
    for axes in grid[len(panels) :]:
        axes.axis("off")
    return figure


def _draw(axes: Axes, title: str, curves: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]]) -> None:
    for label, (epochs, values) in curves.items():
        seen = np.isfinite(values)
        axes.plot(epochs[seen], values[seen], marker="." if seen.sum() < 40 else "", linewidth=1.4, label=label)
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("epoch", fontsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.3)
    if any(curves):
        axes.legend(fontsize=7)
