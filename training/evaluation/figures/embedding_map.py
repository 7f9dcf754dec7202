"""Two-dimensional map of embeddings by identity and modality."""

from __future__ import annotations

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from sklearn.manifold import TSNE

from models.card import Modality
from training.evaluation.embeddings import Embeddings

__all__ = ["draw_embedding_map", "project"]

_MARKERS = {Modality.VISIBLE: "o", Modality.INFRARED: "^"}


def project(embeddings: Embeddings, *, seed: int = 0, perplexity: float = 20.0) -> NDArray[np.float32]:
    """Project embeddings by t-SNE with cosine distance (van der Maaten and Hinton, JMLR 2008); float32 ``[N, 2]``.

    The perplexity is reduced if N is small. Only neighbourhoods in the plane are meaningful, not distances.

    Raises:
        ValueError: fewer than four images.
    """
    if len(embeddings) < 4:
        raise ValueError(f"expected at least four images to map, found {len(embeddings)}")
    nearness = min(perplexity, (len(embeddings) - 1) / 3)
    method = TSNE(perplexity=nearness, metric="cosine", init="random", learning_rate="auto", random_state=seed)
    return np.asarray(method.fit_transform(embeddings.vectors), dtype=np.float32)


def draw_embedding_map(embeddings: Embeddings, points: NDArray[np.float32]) -> Figure:
    """Draw projected embeddings: the colour is the identity, the marker the modality (triangle: infrared).

    Args:
        embeddings: N images; with more than 20 identities the colours repeat.
        points: float32 ``[N, 2]`` from :func:`project`.
    """
    figure = Figure(figsize=(8, 6.5), layout="constrained")
    axes = figure.subplots()
    names, codes = np.unique(embeddings.identities, return_inverse=True)
    colours = colormaps["tab20"](codes % 20)
    for modality, marker in _MARKERS.items():
        rows = embeddings.modalities == modality.index
        x, y = points[rows].T
        axes.scatter(x, y, s=34, c=colours[rows], marker=marker, alpha=0.85, edgecolors="white", linewidths=0.4)
    axes.set_title(f"{len(embeddings)} images of {len(names)} identities (t-SNE)", fontsize=10)
    axes.set_xticks([])
    axes.set_yticks([])
    marks = [
        Line2D([], [], marker=marker, linestyle="", color="#57606a", label=modality.value)
        for modality, marker in _MARKERS.items()
    ]
    axes.add_artist(axes.legend(handles=marks, loc="upper left", fontsize=8))
    if len(names) <= 20:
        people = [
            Line2D([], [], marker="s", linestyle="", color=colormaps["tab20"](code), label=str(name))
            for code, name in enumerate(names)
        ]
        axes.legend(handles=people, loc="center left", bbox_to_anchor=(1, 0.5), fontsize=7, title="identity")
    return figure
