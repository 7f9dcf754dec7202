"""Images beside their translations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from training.data.images import Pixels

__all__ = ["draw_translations"]


def draw_translations(columns: Mapping[str, Sequence[Pixels]]) -> Figure:
    """Draw columns of images, uint8 RGB ``[H, W, 3]``, with a title; all have the same number of images."""
    count = len(next(iter(columns.values())))
    figure = Figure(figsize=(1.2 * len(columns), 2.1 * count + 0.3), layout="constrained")
    grid = figure.subplots(count, len(columns), squeeze=False)
    for axes_of, (name, images) in zip(grid.T, columns.items(), strict=True):
        axes_of[0].set_title(name, fontsize=9)
        for axes, image in zip(axes_of, images, strict=True):
            axes.imshow(image)
            axes.axis("off")
    return figure
