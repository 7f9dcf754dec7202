"""Validation of a network on held-out identities."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from models.baseline import Baseline
from models.card import Modality
from training.data.cache import CropCache
from training.data.dataset import PlainCrops
from training.data.training_data import HeldOut
from training.data.translator import Translator
from training.evaluation.embedder import embed_crops, network_embedder
from training.evaluation.embeddings import Embeddings
from training.evaluation.exclusion import Exclusion, crosses_visible_cameras, usual_exclusion
from training.evaluation.metrics import evaluate

__all__ = ["Measure", "check_validation", "measure", "selection_score", "validate"]

Measure = Callable[[Embeddings, Embeddings, Exclusion], Mapping[str, float]]
"""Function from queries, gallery and exclusion rule to metrics by name, one of them ``map``."""


def measure(query: Embeddings, gallery: Embeddings, exclusion: Exclusion) -> Mapping[str, float]:
    """Compute Rank-k, mAP and mINP."""
    return evaluate(query, gallery, exclusion).values()


def validate(
    network: Baseline, held_out: Sequence[HeldOut], cache: CropCache, translator: Translator | None, measure: Measure
) -> dict[str, float]:
    """Compute metrics ``DATA SET/QUERY_to_GALLERY/METRIC`` of each data set in both cross-modality directions.

    If an identity has visible crops of two cameras, visible to visible across cameras is measured too. The exclusion
    rule is that of ``usual_exclusion``. The training mode of the network is restored.

    Raises:
        ValueError: no query has a positive after exclusion, for instance with translated infrared and a single camera.
    """
    was_training = network.training
    network.eval()
    metrics: dict[str, float] = {}
    for part in held_out:
        crops = PlainCrops(part.records, cache, misaligned=part.misaligned, translator=translator)
        found = Embeddings.of(embed_crops(network_embedder(network), crops), part.records)
        exclusion = usual_exclusion(part.records)
        for query in Modality:
            rows = [np.flatnonzero(found.modalities == side.index) for side in (query, query.opposite)]
            values = measure(found.take(rows[0]), found.take(rows[1]), exclusion)
            metrics |= {f"{part.name}/{query}_to_{query.opposite}/{key}": v for key, v in values.items()}
        if crosses_visible_cameras(part.records):
            visible = found.take(np.flatnonzero(found.modalities == Modality.VISIBLE.index))
            values = measure(visible, visible, Exclusion.SAME_ID_SAME_CAM)
            metrics |= {f"{part.name}/visible_to_visible/{key}": v for key, v in values.items()}
    network.train(was_training)
    return metrics


def check_validation(held_out: Sequence[HeldOut]) -> None:
    """Check that every data set has a valid query, before any image is decoded.

    Raises:
        ValueError: ``usual_exclusion`` excludes every positive; the message names the settings to change.
    """
    for part in held_out:
        if usual_exclusion(part.records) is Exclusion.NONE:
            continue
        cameras: dict[str, set[str]] = {}
        for record in part.records:
            cameras.setdefault(record.identity, set()).add(record.camera)
        if all(len(seen) == 1 for seen in cameras.values()):
            raise ValueError(
                f"{part.name}: validation is impossible, since each of its {len(cameras)} held-out identities was seen "
                "by one camera and a query ignores images of its own identity and camera. Name the camera in the file "
                "names, as in 0001_c2_17.jpg (camera_pattern), or switch validation off: validation.share=0"
            )


def selection_score(metrics: Mapping[str, float]) -> float:
    """Return the score for selecting an epoch: the mean mAP over data sets and directions; -inf without metrics."""
    values = [value for name, value in metrics.items() if name.rsplit("/", 1)[-1] == "map"]
    return sum(values) / len(values) if values else -math.inf
