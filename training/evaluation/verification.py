"""Verification and open-set identification error rates, and the calibration of scores.

Scores are counted on a grid of 2^-20, so memory does not depend on the number of pairs. The share of scores at or above
a multiple of 2^-20 is exact; thresholds are such multiples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from models.card import THRESHOLD_RATES, Calibration, Modality
from training.evaluation.embeddings import Embeddings
from training.evaluation.exclusion import Exclusion, excluded
from training.evaluation.similarity import Scores, Similarity

__all__ = [
    "FPIR_RATES",
    "Identification",
    "PairCounts",
    "PeopleCounts",
    "ScoreCounts",
    "Verification",
    "calibrate",
    "count_pairs",
    "identify",
    "verify",
]

FPIR_RATES = (0.01, 0.1)
"""False positive identification rates that are reported."""

_GRID = 1 << 20
_SLACK = 1 << 4  # float32 cosines may exceed [-1, 1] by a few units in the last place
_LOWEST = -_GRID - _SLACK
_BINS = 2 * (_GRID + _SLACK) + 1
_LEAST_ERRORS = 10  # a rate is estimable if this many pairs are expected at or above the threshold
_CALIBRATION_POINTS = 64
_ELEMENTS = 1 << 22


@dataclass(frozen=True, eq=False, slots=True)
class ScoreCounts:
    """Number of scores at or above each multiple of 2^-20: int64, one entry per grid point, descending."""

    at_least: NDArray[np.int64]

    @classmethod
    def empty(cls) -> Self:
        """Return counts without scores."""
        return cls(np.zeros(_BINS + 1, dtype=np.int64))

    def plus(self, scores: NDArray[np.float32]) -> ScoreCounts:
        """Return the counts with further scores added.

        Raises:
            ValueError: a score is outside [-1, 1].
        """
        cells = np.floor(scores.ravel() * np.float32(_GRID)).astype(np.int64) - _LOWEST
        if len(cells) and (cells.min() < 0 or cells.max() >= _BINS):
            raise ValueError(f"expected cosines in [-1, 1], found {scores.min()} to {scores.max()}")
        counts = np.bincount(cells, minlength=_BINS + 1)
        return ScoreCounts(self.at_least + np.cumsum(counts[::-1])[::-1])

    @property
    def total(self) -> int:
        """Number of scores."""
        return int(self.at_least[0])

    def share_at_least(self, threshold: float) -> float:
        """Return the share of scores ``>= threshold``, a multiple of 2^-20."""
        return float(self.at_least[round(threshold * _GRID) - _LOWEST]) / self.total

    def threshold(self, rate: float) -> float:
        """Return the smallest multiple of 2^-20 with at most that share of scores at or above it."""
        allowed = np.floor(rate * self.total * (1 + 1e-12))  # products such as 0.07 * 100 are not exact
        cell = int(np.searchsorted(-self.at_least, -allowed, side="left"))
        return (cell + _LOWEST) / _GRID

    def histogram(self, edges: NDArray[np.float64]) -> NDArray[np.int64]:
        """Count the scores in each interval ``[edges[i], edges[i + 1])``; edges are multiples of 2^-20 in [-1, 1]."""
        counts: NDArray[np.int64] = -np.diff(self.at_least[np.round(edges * _GRID).astype(np.int64) - _LOWEST])
        return counts

    def estimable(self, rate: float) -> bool:
        """Return whether there are enough scores to estimate the rate."""
        return rate * self.total * (1 + 1e-12) >= _LEAST_ERRORS


@dataclass(frozen=True, eq=False, slots=True)
class PairCounts:
    """Scores of genuine pairs (same identity) and impostor pairs, without excluded pairs."""

    genuine: ScoreCounts
    impostor: ScoreCounts


class Verification(BaseModel):
    """False non-match rate at the threshold of a false match rate; None with too few impostor pairs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    target_fmr: float = Field(validation_alias=AliasChoices("target_fmr", "asked_fmr"))  # the latter in older results
    threshold: float | None
    fmr: float | None
    fnmr: float | None
    genuine_pairs: int
    impostor_pairs: int


class Identification(BaseModel):
    """True positive identification rate at the threshold of a false positive one; None with too few unmated probes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    target_fpir: float = Field(validation_alias=AliasChoices("target_fpir", "asked_fpir"))
    threshold: float | None
    fpir: float | None
    tpir: float | None
    mated_probes: int
    unmated_probes: int


def count_pairs(query: Embeddings, gallery: Embeddings, exclusion: Exclusion = Exclusion.NONE) -> PairCounts:
    """Count the scores of all pairs of two sets of unit vectors; memory does not grow with the number of pairs.

    If both are the same object, each two of its images are one pair, and none is paired with itself.

    Raises:
        ValueError: a score is outside [-1, 1].
    """
    genuine, impostor = ScoreCounts.empty(), ScoreCounts.empty()
    done = 0
    for scores, same, kept in _blocks(query, gallery, exclusion):
        if gallery is query:
            kept &= np.arange(len(gallery)) > np.arange(done, done + len(scores))[:, None]
            done += len(scores)
        genuine = genuine.plus(scores[same & kept])
        impostor = impostor.plus(scores[~same & kept])
    return PairCounts(genuine, impostor)


def verify(pairs: PairCounts, rate: float, threshold: float | None = None) -> Verification:
    """Measure the FNMR at a false match rate.

    Args:
        pairs: scores of the evaluated identities.
        rate: target false match rate.
        threshold: a threshold from other identities; None: derived from these pairs.

    Raises:
        ValueError: there is no genuine pair.
    """
    if not pairs.genuine.total:
        raise ValueError("expected genuine pairs, found none")
    counts = {"genuine_pairs": pairs.genuine.total, "impostor_pairs": pairs.impostor.total}
    if not pairs.impostor.estimable(rate):
        return Verification(target_fmr=rate, threshold=None, fmr=None, fnmr=None, **counts)
    threshold = pairs.impostor.threshold(rate) if threshold is None else np.ceil(threshold * _GRID) / _GRID
    return Verification(
        target_fmr=rate,
        threshold=threshold,
        fmr=pairs.impostor.share_at_least(threshold),
        fnmr=1 - pairs.genuine.share_at_least(threshold),
        **counts,
    )


def identify(query: Embeddings, gallery: Embeddings, exclusion: Exclusion, rate: float) -> Identification:
    """Measure open-set identification: a probe with a positive after exclusion is mated, any other is unmated.

    Raises:
        ValueError: there is no mated probe, or a score is outside [-1, 1].
    """
    best, correct, mated = _best_match(query, gallery, exclusion)
    if not mated.any():
        raise ValueError(f"expected probes with a mate in the gallery, found none among {len(query)}")
    unmated = ScoreCounts.empty().plus(best[~mated & np.isfinite(best)])
    counts = {"mated_probes": int(mated.sum()), "unmated_probes": int((~mated).sum())}
    if rate * counts["unmated_probes"] < _LEAST_ERRORS:
        return Identification(target_fpir=rate, threshold=None, fpir=None, tpir=None, **counts)
    # a probe with an empty gallery has no score: it is unmated and never a false positive
    threshold = unmated.threshold(rate * counts["unmated_probes"] / max(1, unmated.total))
    return Identification(
        target_fpir=rate,
        threshold=threshold,
        fpir=float((best[~mated] >= threshold).mean()),
        tpir=float((correct & (best >= threshold))[mated].mean()),
        **counts,
    )


def calibrate(
    impostor: ScoreCounts,
    query: Modality,
    gallery: Modality,
    data: str,
    *,
    real: bool | None = None,
    people: PeopleCounts | None = None,
) -> Calibration:
    """Calibrate the scores of a modality pair for a card.

    There are about 64 points, spaced logarithmically from rate 1 down to one pair: each is the smallest score with at
    most the target rate of impostor pairs at or above it, together with their actual share.

    Args:
        impostor: scores of pairs of different people.
        query: modality of the first crop of a pair.
        gallery: modality of the second crop of a pair.
        data: name of the data set.
        real: whether no crop was translated.
        people: counts the same pairs by person, for intervals of the rates; None: no intervals.

    Raises:
        ValueError: there are too few scores for two different rates.
    """
    if impostor.total < 2:
        raise ValueError(f"expected impostor pairs to calibrate on, found {impostor.total}")
    targets = np.geomspace(1, 1 / impostor.total, _CALIBRATION_POINTS)
    points: dict[float, float] = {}  # rate → score
    for score in (impostor.threshold(rate) for rate in targets):
        points.setdefault(impostor.share_at_least(score), score)
    points.pop(0.0, None)
    if len(points) < 2:
        raise ValueError(f"expected different scores to calibrate on, found {impostor.total} impostor pairs with one")
    scores = tuple(points.values())
    return Calibration(
        query=query,
        gallery=gallery,
        data=data,
        real=real,
        impostor_pairs=impostor.total,
        identities=people.identities if people else None,
        rates=tuple(points),
        scores=scores,
        intervals=people.intervals(scores) if people else (),
        thresholds={
            str(rate): impostor.threshold(rate) if impostor.estimable(rate) else None for rate in THRESHOLD_RATES
        },
    )


@dataclass(frozen=True, eq=False, slots=True)
class PeopleCounts:
    """Counts of the impostor pairs of queries and gallery by person."""

    query: Embeddings
    gallery: Embeddings

    @property
    def identities(self) -> int:
        """Number of people."""
        return len(self._names())

    def intervals(
        self, scores: Sequence[float], resamples: int = 400, seed: int = 0
    ) -> tuple[tuple[float, float], ...]:
        """Return the 95 % interval of the share of pairs at or above each score, by bootstrapping over people.

        People are resampled, since pairs with a common person are not independent. Pairs of a person with a copy of
        itself are not impostor pairs and are ignored. The interval is for the rate of the whole population. A rate that
        is measured on as many other people varies as well and lies inside about 84 times in 100.
        """
        names = self._names()
        rows, columns = (np.searchsorted(names, side.identities) for side in (self.query, self.gallery))
        count = len(names)
        similarity = self.query.vectors @ self.gallery.vectors.T
        cells = rows[:, None] * count + columns
        impostor = rows[:, None] != columns
        pairs = np.bincount(cells[impostor], minlength=count * count).reshape(count, count).astype(np.float64)
        drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), resamples).astype(np.float64)
        total = np.einsum("ra,ab,rb->r", drawn, pairs, drawn, optimize=True)
        drawn, total = drawn[total > 0], total[total > 0]  # a resample of a single person has no pair
        intervals = []
        for score in scores:
            above = np.bincount(cells[impostor & (similarity >= score)], minlength=count * count)
            hits = np.einsum("ra,ab,rb->r", drawn, above.reshape(count, count).astype(np.float64), drawn, optimize=True)
            low, high = np.percentile(hits / total, (2.5, 97.5))
            intervals.append((float(low), float(min(high, 1.0))))
        return tuple(intervals)

    def _names(self) -> NDArray[np.str_]:
        return np.unique(np.concatenate((self.query.identities, self.gallery.identities)))


_Mask = NDArray[np.bool_]


def _blocks(query: Embeddings, gallery: Embeddings, exclusion: Exclusion) -> Iterator[tuple[Scores, _Mask, _Mask]]:
    """Yield scores, same identity and not excluded, ``[q, G]`` each, for blocks of queries."""
    similarity = Similarity(query.vectors, gallery.vectors)
    step = max(1, _ELEMENTS // max(1, len(gallery)))
    for start in range(0, len(query), step):
        rows = slice(start, min(start + step, len(query)))
        part = query.take(rows)
        mask = excluded(exclusion, part, gallery)
        same = part.identities[:, None] == gallery.identities
        kept = np.ones_like(same) if mask is None else ~mask
        if gallery is query:
            np.fill_diagonal(kept[:, rows], False)
        yield similarity(rows), same, kept


def _best_match(query: Embeddings, gallery: Embeddings, exclusion: Exclusion) -> tuple[Scores, _Mask, _Mask]:
    """Return the best score of each query (-inf without a gallery), whether it is correct, and whether it is mated."""
    parts = []
    for scores, same, kept in _blocks(query, gallery, exclusion):
        allowed = np.where(kept, scores, np.float32(-np.inf))
        first = allowed.argmax(axis=1)[:, None]  # the first of equal scores in the gallery
        correct = np.take_along_axis(same & kept, first, axis=1)
        parts.append((np.take_along_axis(allowed, first, axis=1)[:, 0], correct[:, 0], (same & kept).any(axis=1)))
    best, correct, mated = (np.concatenate(column) for column in zip(*parts, strict=True))
    return best, correct, mated
