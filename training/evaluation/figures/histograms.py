"""Histograms of the cosine distances of genuine and impostor pairs for each modality pair."""

from __future__ import annotations

from itertools import combinations_with_replacement

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from models.card import Modality
from training.evaluation.embeddings import Embeddings
from training.evaluation.verification import PairCounts, ScoreCounts, count_pairs

__all__ = ["count_by_modality", "draw_histograms"]

_EDGES = np.linspace(-1, 1, 129)  # multiples of 2^-6, so the counts are exact
_COLOURS = {"same identity": "#0969da", "other identity": "#bc4c00"}


def count_by_modality(embeddings: Embeddings) -> dict[tuple[Modality, Modality], PairCounts]:
    """Count the scores of all pairs of different images for each modality pair; the embeddings are unit vectors.

    Raises:
        ValueError: a score is outside [-1, 1].
    """
    sides = {m: embeddings.take(np.flatnonzero(embeddings.modalities == m.index)) for m in Modality}
    return {pair: count_pairs(sides[pair[0]], sides[pair[1]]) for pair in combinations_with_replacement(Modality, 2)}


def draw_histograms(counts: dict[tuple[Modality, Modality], PairCounts]) -> Figure:
    """Draw a panel for each modality pair; each histogram has area 1, so few genuine pairs are visible too."""
    figure = Figure(figsize=(4.2 * len(counts), 3.3), layout="constrained")
    grid = figure.subplots(1, len(counts), squeeze=False, sharex=True)[0]
    farthest = max((_farthest(scores) for p in counts.values() for scores in (p.genuine, p.impostor)), default=2.0)
    for axes, ((one, other), pairs) in zip(grid, counts.items(), strict=True):
        for (label, colour), scores in zip(_COLOURS.items(), (pairs.genuine, pairs.impostor), strict=True):
            if scores.total:
                _draw(axes, scores, f"{label}: {scores.total:,}", colour)
        axes.set_title(f"{one} – {other}", fontsize=10)
        axes.set_xlabel("cosine distance", fontsize=9)
        axes.set_xlim(0, farthest)
        axes.set_yticks([])
        if axes.patches:
            axes.legend(fontsize=8, title="pairs", title_fontsize=8)
    return figure


def _draw(axes: Axes, scores: ScoreCounts, label: str, colour: str) -> None:
    density = scores.histogram(_EDGES) / (scores.total * np.diff(_EDGES))
    axes.stairs(density[::-1], 1 - _EDGES[::-1], fill=True, alpha=0.45, color=colour, label=label)


def _farthest(scores: ScoreCounts) -> float:
    """Return the largest distance with a count above 0."""
    filled = np.flatnonzero(scores.histogram(_EDGES))
    return float(1 - _EDGES[filled[0]]) if len(filled) else 0.0
