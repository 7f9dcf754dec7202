"""Judging a network on identities that took no part in training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from models.baseline import Baseline
from models.card import Modality
from training.data.cache import CropCache
from training.data.dataset import PlainCrops
from training.data.translation import Translator
from training.embedding import embed_crops, of_network
from training.evaluation.embeddings import Embeddings
from training.evaluation.exclusion import Exclusion, usual_exclusion
from training.evaluation.metrics import evaluate
from training.sources import HeldOut

__all__ = ["Measure", "measure", "selection_score", "validate"]

Measure = Callable[[Embeddings, Embeddings, Exclusion], Mapping[str, float]]
"""Metrics by name of a query and a gallery under an exclusion rule; ``map`` must be among them."""


def measure(query: Embeddings, gallery: Embeddings, exclusion: Exclusion) -> Mapping[str, float]:
    """Rank-k, mAP and mINP."""
    return evaluate(query, gallery, exclusion).values()


def validate(
    network: Baseline, held_out: Sequence[HeldOut], cache: CropCache, translator: Translator, measure: Measure
) -> dict[str, float]:
    """Metrics ``DATA SET/QUERY_to_GALLERY/METRIC`` of each data set, visible to infrared and back.

    Which pairs count is ``usual_exclusion``'s to say. The network's mode is the caller's again afterwards.

    Raises:
        ValueError: by that rule no query has an answer left, as where infrared is imitated and no camera is named.
    """
    was_training = network.training
    network.eval()
    metrics: dict[str, float] = {}
    for part in held_out:
        crops = PlainCrops(part.records, cache, misaligned=part.misaligned, translator=translator)
        found = Embeddings.of(embed_crops(of_network(network), crops), part.records)
        exclusion = usual_exclusion(part.records)
        for query in Modality:
            rows = [np.flatnonzero(found.modalities == side.index) for side in (query, query.opposite)]
            values = measure(found.take(rows[0]), found.take(rows[1]), exclusion)
            metrics |= {f"{part.name}/{query}_to_{query.opposite}/{key}": v for key, v in values.items()}
    network.train(was_training)
    return metrics


def selection_score(metrics: Mapping[str, float]) -> float:
    """What the best epoch is chosen by: the mean mAP over data sets and directions."""
    values = [value for name, value in metrics.items() if name.rsplit("/", 1)[-1] == "map"]
    return sum(values) / len(values)
