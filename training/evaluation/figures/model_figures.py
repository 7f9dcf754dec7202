"""Figures of a network on a set of crops: rankings, heat maps, embedding map and score histograms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from models.baseline import Baseline
from models.card import Modality
from training.evaluation.embeddings import Embeddings
from training.evaluation.evaluator import EvaluationSet, embed, open_crops
from training.evaluation.figures.curves import draw_curves, read_log
from training.evaluation.figures.embedding_map import draw_embedding_map, project
from training.evaluation.figures.heatmap import attention, draw_heatmaps
from training.evaluation.figures.histograms import count_by_modality, draw_histograms
from training.evaluation.figures.ranklist import draw_ranklist, find_hits, lay_out
from training.evaluation.model_loader import LoadedModel

__all__ = ["plot_curves", "plot_embedding_map", "plot_heatmaps", "plot_histograms", "plot_ranklists"]


def plot_ranklists(
    model: LoadedModel, data: EvaluationSet, cache: Path, queries: int, hits: int, seed: int = 0
) -> Figure:
    """Plot the first hits of random queries under the set's first protocol."""
    protocol = data.protocols[0]
    crops = open_crops(model, data, cache)
    images = Embeddings.of(embed(model, data, cache), data.records)
    gallery_rows = np.flatnonzero(images.modalities == protocol.direction.gallery.index)
    every_query = np.flatnonzero(images.modalities == protocol.direction.query.index)
    query_rows = every_query[_some(len(every_query), queries, seed)]
    query, gallery = images.take(query_rows), images.take(gallery_rows)
    found = find_hits(query, gallery, hits, protocol.exclusion)
    return draw_ranklist(
        lay_out(query, gallery, found, lambda row: crops[query_rows[row]][0], lambda row: crops[gallery_rows[row]][0])
    )


def plot_heatmaps(
    network: Baseline, model: LoadedModel, data: EvaluationSet, cache: Path, images: int, seed: int = 0
) -> Figure:
    """Plot crops of each modality with heat maps of their embeddings."""
    crops = open_crops(model, data, cache)
    rows = []
    for modality in Modality:
        own = np.array([row for row, record in enumerate(data.records) if record.modality is modality], np.int64)
        chosen = own[_some(len(own), images, seed)]
        batch = np.stack([crops[row][0] for row in chosen])
        maps = attention(network, torch.from_numpy(batch), torch.full((len(batch),), modality.index))
        titles = [f"{data.records[row].identity}, {modality}" for row in chosen]
        rows.append(list(zip(batch, maps, titles, strict=True)))
    return draw_heatmaps(rows)


def plot_embedding_map(model: LoadedModel, data: EvaluationSet, cache: Path, identities: int, seed: int = 0) -> Figure:
    """Plot a t-SNE map of random identities in both modalities."""
    images = Embeddings.of(embed(model, data, cache), data.records)
    names = np.unique(images.identities)
    shown = names[_some(len(names), identities, seed)]
    some = images.take(np.flatnonzero(np.isin(images.identities, shown)))
    return draw_embedding_map(some, project(some, seed=seed))


def plot_histograms(model: LoadedModel, data: EvaluationSet, cache: Path) -> Figure:
    """Plot histograms of the distances of genuine and impostor pairs for each modality pair."""
    return draw_histograms(count_by_modality(Embeddings.of(embed(model, data, cache), data.records)))


def plot_curves(run: Path) -> Figure:
    """Plot losses, learning rate and validation metrics over the epochs of a run.

    Raises:
        OSError: the run has no logs.
    """
    paths = {name: run / f"{name}.csv" for name in ("training", "validation")}
    return draw_curves({name: read_log(path) for name, path in paths.items() if name == "training" or path.exists()})


def _some(available: int, count: int, seed: int) -> NDArray[np.int64]:
    """Draw at most ``count`` of ``available`` indices, in ascending order."""
    return np.sort(np.random.default_rng(seed).permutation(available)[:count])
