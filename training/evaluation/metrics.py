"""CMC, mAP and mINP: pure functions on a ranking, and a chunked evaluation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from training.evaluation.embeddings import Embeddings
from training.evaluation.exclusion import Exclusion, excluded
from training.evaluation.ranking import Ranking, Ranks, rank
from training.evaluation.similarity import Scores, Similarity

__all__ = [
    "REPORTED_RANKS",
    "Cmc",
    "Metrics",
    "Scorer",
    "average_precision",
    "cmc_curve",
    "evaluate",
    "inverse_negative_penalty",
]

REPORTED_RANKS = (1, 5, 10, 20)

Scorer = Callable[[slice], Scores]
"""Function from a slice of the queries to scores against the whole gallery, float32 ``[len(slice), G]``."""

_MEMORY = 256 << 20  # bytes for the scores of a chunk and their copies


class Cmc(StrEnum):
    """What a rank of the CMC counts."""

    DISTINCT = "distinct"
    """Distinct identities, each at its first image (SYSU-MM01 and LLCM)."""
    IMAGE = "image"
    """Images (RegDB)."""


def average_precision(ranking: Ranking) -> NDArray[np.float64]:
    """Return the average precision of each query, without interpolation.

    Float64 ``[queries]`` in (0, 1], NaN for a query without a positive after exclusion.

    >>> scores = np.array([[4, 3, 2, 1]], np.float32)
    >>> average_precision(rank(scores, np.array(["A"]), np.array(["A", "B", "A", "C"])))
    array([0.83333333])
    """
    positives = ranking.positives
    found = 1 + np.arange(len(ranking.query)) - (np.cumsum(positives) - positives)[ranking.query]
    total = np.bincount(ranking.query, weights=found / ranking.place, minlength=len(ranking))
    return _divide(total, positives)


def inverse_negative_penalty(ranking: Ranking) -> NDArray[np.float64]:
    """Return the number of positives of each query divided by the rank of the last one.

    Float64 ``[queries]`` in (0, 1], NaN for a query without a positive after exclusion.

    >>> scores = np.array([[4, 3, 2, 1]], np.float32)
    >>> inverse_negative_penalty(rank(scores, np.array(["A"]), np.array(["A", "B", "A", "C"])))
    array([0.66666667])
    """
    last = np.zeros(len(ranking), dtype=np.int64)
    ends = np.flatnonzero(np.diff(ranking.query, append=len(ranking)))
    last[ranking.query[ends]] = ranking.place[ends]
    return _divide(ranking.positives, last)


def cmc_curve(first: Ranks, max_rank: int) -> NDArray[np.float64]:
    """Return the share of the valid queries whose first match has at most rank k, for k = 1..max_rank.

    Args:
        first: int64 ``[queries]``, rank of each query's first match; 0 for an invalid query.
        max_rank: length of the curve.

    Returns float64 ``[max_rank]``, all NaN without a valid query.

    >>> cmc_curve(np.array([1, 3, 0, 1]), 4)
    array([0.66666667, 0.66666667, 1.        , 1.        ])
    """
    hits = np.bincount(first, minlength=max_rank + 1)
    return _divide(np.cumsum(hits[1 : max_rank + 1]), np.array(hits[1:].sum()))


@dataclass(frozen=True, slots=True)
class Metrics:
    """Metrics of a gallery under a protocol; all rates are fractions, averaged only over valid queries.

    ``cmc[k - 1]`` is Rank-k. ``chance_rank1`` is the Rank-1 of a random ranking. ``valid_queries`` of the ``queries``
    have a positive after exclusion. ``gallery`` is the number of images, ``gallery_identities`` that of identities.
    """

    cmc: tuple[float, ...]
    mean_ap: float
    mean_inp: float
    chance_rank1: float
    queries: int
    valid_queries: int
    gallery: int
    gallery_identities: int

    @property
    def rank1(self) -> float:
        """Rank-1."""
        return self.cmc[0]

    def values(self) -> dict[str, float]:
        """Return the metrics by their names in results: ``rank1`` … ``rank20``, ``map``, ``minp``, ``chance_rank1``."""
        ranks = {f"rank{k}": self.cmc[k - 1] for k in REPORTED_RANKS if k <= len(self.cmc)}
        return ranks | {"map": self.mean_ap, "minp": self.mean_inp, "chance_rank1": self.chance_rank1}


def evaluate(
    query: Embeddings,
    gallery: Embeddings,
    exclusion: Exclusion = Exclusion.NONE,
    cmc: Cmc = Cmc.DISTINCT,
    *,
    max_rank: int = 20,
    chunk: int | None = None,
    scores: Scorer | None = None,
) -> Metrics:
    """Rank the gallery for every query and compute the metrics, which do not depend on ``chunk``.

    Args:
        query, gallery: embeddings ``[Q, D]`` and ``[G, D]``; ranked by inner product, ties by gallery index.
        exclusion: rule for pairs that are excluded from the ranking.
        cmc: what a rank of the CMC counts; mAP and mINP always count images.
        max_rank: length of the CMC curve.
        chunk: number of queries per chunk; by default as many as fit into 256 MiB.
        scores: replaces the inner product, for instance with re-ranked scores.

    Raises:
        ValueError: no query has a positive after exclusion, dimensions differ, or ``max_rank`` or ``chunk`` is below 1.
    """
    if max_rank < 1 or (chunk is not None and chunk < 1):
        raise ValueError(f"max_rank and chunk must be at least 1, found {max_rank} and {chunk}")
    scores = Similarity(query.vectors, gallery.vectors) if scores is None else scores
    chunk = chunk or max(1, _MEMORY // (8 * max(1, len(gallery))))
    measured = []
    for start in range(0, len(query), chunk):
        rows = slice(start, min(start + chunk, len(query)))
        part = query.take(rows)
        ranking = rank(scores(rows), part.identities, gallery.identities, excluded(exclusion, part, gallery))
        measured.append(_measures(ranking, cmc))
    if not any(first.any() for first, *_ in measured):
        raise ValueError(
            f"none of {len(query)} queries has a positive among {len(gallery)} gallery images "
            f"after exclusion {exclusion.value}"
        )
    first, precision, penalty, chance = (np.concatenate(column) for column in zip(*measured, strict=True))
    valid = first > 0
    return Metrics(
        cmc=tuple(cmc_curve(first, max_rank).tolist()),
        mean_ap=float(precision[valid].mean()),
        mean_inp=float(penalty[valid].mean()),
        chance_rank1=float(chance[valid].mean()),
        queries=len(query),
        valid_queries=int(valid.sum()),
        gallery=len(gallery),
        gallery_identities=len(np.unique(gallery.identities)),
    )


def _measures(ranking: Ranking, cmc: Cmc) -> tuple[Ranks, *tuple[NDArray[np.float64], ...]]:
    """Return for each query the rank of its first match, average precision, inverse negative penalty, chance Rank-1."""
    first = ranking.identity_place if cmc is Cmc.DISTINCT else ranking.first_place
    chance = _divide(ranking.positives, ranking.kept)
    return first, average_precision(ranking), inverse_negative_penalty(ranking), chance


def _divide(total: NDArray[np.float64] | Ranks, count: Ranks) -> NDArray[np.float64]:
    """Divide; NaN where the count is 0."""
    quotient = np.full(total.shape, np.nan)
    np.divide(total, count, out=quotient, where=count > 0)
    return quotient
