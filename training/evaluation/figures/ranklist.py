"""Rank lists: queries and their first hits, with correct and wrong ones marked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from models.card import Modality
from training.evaluation.embeddings import Embeddings
from training.evaluation.exclusion import Exclusion, excluded
from training.evaluation.ranking import nearest
from training.evaluation.similarity import Similarity

__all__ = ["Hit", "Shown", "draw_ranklist", "find_hits", "lay_out"]

Pixels = NDArray[np.uint8]

_CORRECT, _WRONG, _QUERY = "#1a7f37", "#cf222e", "#57606a"


@dataclass(frozen=True, slots=True)
class Hit:
    """A gallery image in a query's ranking."""

    row: int
    """Index in the gallery."""
    score: float
    correct: bool


@dataclass(frozen=True, eq=False, slots=True)
class Shown:
    """An image of a rank list: uint8 ``[H, W, 3]``, its label, and whether it is a correct hit (None: a query)."""

    image: Pixels
    text: str
    correct: bool | None = None


def find_hits(
    query: Embeddings, gallery: Embeddings, count: int, exclusion: Exclusion = Exclusion.NONE
) -> list[list[Hit]]:
    """Return up to ``count`` first hits of each query after exclusion, in the order of :func:`metrics.evaluate`."""
    scores = Similarity(query.vectors, gallery.vectors)(slice(0, len(query)))
    columns = nearest(scores, min(count, len(gallery)), excluded(exclusion, query, gallery))
    return [
        [
            Hit(column, float(scores[row, column]), bool(query.identities[row] == gallery.identities[column]))
            for column in found
            if column >= 0
        ]
        for row, found in enumerate(columns.tolist())
    ]


def draw_ranklist(rows: Sequence[Sequence[Shown]]) -> Figure:
    """Draw a row for each query, followed by its hits from the best; green marks correct hits, red wrong ones.

    Raises:
        ValueError: there is nothing to draw.
    """
    widest = max((len(row) for row in rows), default=0)
    if not widest:
        raise ValueError("expected at least one query to draw, found none")
    figure = Figure(figsize=(1.15 * widest + 0.3, 2.55 * len(rows)), layout="constrained")
    for number, (row, line) in enumerate(zip(rows, figure.subplots(len(rows), widest, squeeze=False), strict=True)):
        for place, axes in enumerate(line):
            if place < len(row):
                _draw(axes, row[place], f"{place}" if place else f"query {number + 1}")
            else:
                axes.axis("off")
    return figure


def lay_out(
    query: Embeddings,
    gallery: Embeddings,
    hits: Sequence[Sequence[Hit]],
    query_image: Callable[[int], Pixels],
    gallery_image: Callable[[int], Pixels],
) -> list[list[Shown]]:
    """Prepare each query and its hits from :func:`find_hits` for drawing.

    Args:
        query, gallery: arguments of :func:`find_hits`.
        hits: hits of each query.
        query_image, gallery_image: functions that return the image of a row, uint8 ``[H, W, 3]``.
    """
    return [
        [
            Shown(query_image(row), _describe(query, row)),
            *(Shown(gallery_image(h.row), f"{_describe(gallery, h.row)}\n{h.score:.3f}", h.correct) for h in found),
        ]
        for row, found in enumerate(hits)
    ]


def _describe(images: Embeddings, row: int) -> str:
    modality = next(m for m in Modality if m.index == images.modalities[row])
    return f"{images.identities[row]}\n{modality} c{images.cameras[row]}"


def _draw(axes: Axes, shown: Shown, place: str) -> None:
    colour = {None: _QUERY, True: _CORRECT, False: _WRONG}[shown.correct]
    mark = {None: "", True: " ✓", False: " ✗"}[shown.correct]
    axes.imshow(shown.image)
    axes.set_title(f"{place}{mark}", fontsize=9, color=colour, fontweight="bold", pad=3)
    axes.set_xlabel(shown.text, fontsize=7, color="#24292f", labelpad=3)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(color=colour, linewidth=3)
