"""Plots of costs on logarithmic axes, drawn from the tables of the results."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

__all__ = ["clients", "gallery_sizes"]

Curve = list[tuple[float, float]]
_SIZE = (6.4, 4.0)  # inches


def gallery_sizes(result: Mapping[str, Any], file: Path) -> None:
    """Plot milliseconds of one unfiltered query over the gallery size, one curve per program."""
    curves: dict[str, Curve] = defaultdict(list)
    for row in _rows(result, "in process"):
        if (row["queries"], row["filtered out"], row["dimension"]) == (1, "0 %", 512):
            curves[row["program"]].append((row["items"], row["ms"]))
    figure = Figure(_SIZE, layout="constrained")
    axes = figure.subplots()
    _draw(axes, curves, "items, 512 dimensions", "ms of one query")
    _save(figure, file)


def clients(result: Mapping[str, Any], file: Path) -> None:
    """Plot throughput and p95 latency over the number of clients, one curve per model graph."""
    rates: dict[str, Curve] = defaultdict(list)
    latencies: dict[str, Curve] = defaultdict(list)
    for title in result["tables"]:
        if title.endswith(": over HTTP"):
            for row in result["tables"][title]:
                if row["server"] == "vireid":
                    name = title.removesuffix(": over HTTP")
                    rates[name].append((row["clients"], row["crops/s"]))
                    latencies[name].append((row["clients"], row["p95 ms"]))
    figure = Figure((2 * _SIZE[0], _SIZE[1]), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw(left, rates, "clients", "crops a second")
    _draw(right, latencies, "clients", "p95 latency, ms")
    _save(figure, file)


def _rows(result: Mapping[str, Any], title: str) -> Iterable[Mapping[str, Any]]:
    return (row for name, rows in result["tables"].items() if name.startswith(title) for row in rows)


def _draw(axes: Any, curves: Mapping[str, Curve], across: str, up: str) -> None:
    for name, points in sorted(curves.items()):
        axes.plot(*zip(*sorted(points), strict=True), marker="o", label=name)
    axes.set(xlabel=across, ylabel=up, xscale="log", yscale="log")
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend()


def _save(figure: Figure, file: Path) -> None:
    with mpl.rc_context({"svg.hashsalt": "vireid"}):  # reproducible files
        figure.savefig(file, metadata={"Date": None})
