"""Pictures beside what translations make of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from training.data.images import Pixels

__all__ = ["draw_translations"]


def draw_translations(columns: Mapping[str, Sequence[Pixels]]) -> Figure:
    """A column for each name, a line for each picture, uint8 RGB ``[H, W, 3]``; all columns have as many."""
    count = len(next(iter(columns.values())))
    figure = Figure(figsize=(1.2 * len(columns), 2.1 * count + 0.3), layout="constrained")
    grid = figure.subplots(count, len(columns), squeeze=False)
    for axes_of, (name, pictures) in zip(grid.T, columns.items(), strict=True):
        axes_of[0].set_title(name, fontsize=9)
        for axes, picture in zip(axes_of, pictures, strict=True):
            axes.imshow(picture)
            axes.axis("off")
    return figure
