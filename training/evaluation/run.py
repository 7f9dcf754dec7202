"""Run a protocol: draw its trials, rank and measure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from pydantic import BaseModel, ConfigDict

from models.card import THRESHOLD_RATES, Modality
from training.evaluation.embeddings import Embeddings, Labelled, Vectors, have_unit_length
from training.evaluation.flip import join_mirrored
from training.evaluation.metrics import Metrics, evaluate
from training.evaluation.protocol import Protocol, ProtocolError
from training.evaluation.rerank import Reranked
from training.evaluation.sampling import Permutation, trials
from training.evaluation.verification import FPIR_RATES, Identification, Verification, count_pairs, identify, verify

__all__ = ["OpenSet", "Outcome", "TrialCounts", "measure_open_set", "run"]


class TrialCounts(BaseModel):
    """Numbers of images in a trial; a valid query has a positive after exclusion."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    queries: int
    valid_queries: int
    gallery: int
    gallery_identities: int
    queries_of_camera: dict[str, int]
    gallery_of_camera: dict[str, int]

    @classmethod
    def of(cls, metrics: Metrics, query: Embeddings, gallery: Embeddings) -> Self:
        """Return the counts of a measured trial."""
        return cls(
            queries=metrics.queries,
            valid_queries=metrics.valid_queries,
            gallery=metrics.gallery,
            gallery_identities=metrics.gallery_identities,
            queries_of_camera=dict(sorted(Counter(query.cameras.tolist()).items())),
            gallery_of_camera=dict(sorted(Counter(gallery.cameras.tolist()).items())),
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """Metrics and counts of a protocol, one entry per trial."""

    metrics: tuple[Metrics, ...]
    counts: tuple[TrialCounts, ...]


class OpenSet(BaseModel):
    """Error rates over all pairs of the two modalities in the test set, and identification in each trial's gallery."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    verification: tuple[Verification, ...]
    identification: tuple[tuple[Identification, ...], ...]
    """The trials for each false positive identification rate."""


def run(
    protocol: Protocol,
    records: Sequence[Labelled],
    vectors: Vectors,
    *,
    mirrored: Vectors | None = None,
    permutation: Permutation | None = None,
) -> Outcome:
    """Measure embeddings under a protocol.

    Args:
        protocol: the protocol.
        records: the N test images of both modalities, see :func:`sampling.trials`.
        vectors: their vectors, float32 ``[N, D]`` of unit length, of the protocol's ``feature``.
        mirrored: vectors of their mirror images; required if the protocol has the flip test, else not allowed.
        permutation: see :func:`sampling.trials`.

    Raises:
        ProtocolError: an argument does not conform to the protocol.
        ValueError: a trial has no valid query.
    """
    images = _prepare(protocol, records, vectors, mirrored)
    metrics, counts = [], []
    for trial in trials(protocol, records, permutation):
        query, gallery = images.take(trial.query), images.take(trial.gallery)
        scores = Reranked(query.vectors, gallery.vectors, protocol.rerank) if protocol.rerank else None
        found = evaluate(query, gallery, protocol.exclusion, protocol.cmc, max_rank=protocol.max_rank, scores=scores)
        metrics.append(found)
        counts.append(TrialCounts.of(found, query, gallery))
    return Outcome(tuple(metrics), tuple(counts))


def measure_open_set(
    protocol: Protocol,
    records: Sequence[Labelled],
    vectors: Vectors,
    *,
    mirrored: Vectors | None = None,
    permutation: Permutation | None = None,
) -> OpenSet:
    """Measure FNMR@FMR and TPIR@FPIR of the scores without re-ranking; arguments and errors as for :func:`run`."""
    images = _prepare(protocol, records, vectors, mirrored)
    sides = {m: images.take(np.flatnonzero(images.modalities == m.index)) for m in Modality}
    pairs = count_pairs(sides[protocol.direction.query], sides[protocol.direction.gallery], protocol.exclusion)
    drawn = [(images.take(t.query), images.take(t.gallery)) for t in trials(protocol, records, permutation)]
    return OpenSet(
        verification=tuple(verify(pairs, rate) for rate in THRESHOLD_RATES),
        identification=tuple(
            tuple(identify(*trial, protocol.exclusion, rate) for trial in drawn) for rate in FPIR_RATES
        ),
    )


def _prepare(protocol: Protocol, records: Sequence[Labelled], vectors: Vectors, mirrored: Vectors | None) -> Embeddings:
    if protocol.flip != (mirrored is not None):
        raise ProtocolError(f"{protocol.id}: expected vectors of mirror images if and only if the protocol has flip")
    images = Embeddings.of(vectors if mirrored is None else join_mirrored(vectors, mirrored), records)
    if not have_unit_length(images.vectors):
        raise ProtocolError(f"{protocol.id}: expected vectors of unit length, one norm for each")
    return images
