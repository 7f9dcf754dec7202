"""What a score means: error rates of a threshold, open-set identification, and the card's calibration.

Scores are counted on a grid of 2^-20, so any number of pairs takes the same memory. The share of scores at or above
a multiple of 2^-20 is exact; thresholds are such multiples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

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
_SLACK = 1 << 4  # float32 cosines may leave [-1, 1] by a few units in the last place
_LOWEST = -_GRID - _SLACK
_BINS = 2 * (_GRID + _SLACK) + 1
_LEAST_ERRORS = 10  # a rate is estimable where this many pairs are expected to cross the threshold
_CALIBRATION_POINTS = 64
_ELEMENTS = 1 << 22


@dataclass(frozen=True, eq=False, slots=True)
class ScoreCounts:
    """How many scores are at or above each multiple of 2^-20: int64, one entry a grid point, falling."""

    at_least: NDArray[np.int64]

    @classmethod
    def empty(cls) -> Self:
        """No score."""
        return cls(np.zeros(_BINS + 1, dtype=np.int64))

    def plus(self, scores: NDArray[np.float32]) -> ScoreCounts:
        """These and further scores.

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
        """Share of the scores that are ``>= threshold``, a multiple of 2^-20."""
        return float(self.at_least[round(threshold * _GRID) - _LOWEST]) / self.total

    def threshold(self, rate: float) -> float:
        """Smallest multiple of 2^-20 that at most that share of the scores reaches."""
        allowed = np.floor(rate * self.total * (1 + 1e-12))  # 0.07 * 100 is a hair above 7 either way
        cell = int(np.searchsorted(-self.at_least, -allowed, side="left"))
        return (cell + _LOWEST) / _GRID

    def histogram(self, edges: NDArray[np.float64]) -> NDArray[np.int64]:
        """Number of scores in each interval ``[edges[i], edges[i + 1])``; rising multiples of 2^-20 in [-1, 1]."""
        counts: NDArray[np.int64] = -np.diff(self.at_least[np.round(edges * _GRID).astype(np.int64) - _LOWEST])
        return counts

    def estimable(self, rate: float) -> bool:
        """Whether there are scores enough to speak of that rate."""
        return rate * self.total * (1 + 1e-12) >= _LEAST_ERRORS


@dataclass(frozen=True, eq=False, slots=True)
class PairCounts:
    """Scores of genuine pairs (same identity) and impostor pairs; excluded pairs are neither."""

    genuine: ScoreCounts
    impostor: ScoreCounts


class Verification(BaseModel):
    """False non-match rate at the threshold of a false match rate; None where there are too few impostor pairs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    asked_fmr: float
    threshold: float | None
    fmr: float | None
    fnmr: float | None
    genuine_pairs: int
    impostor_pairs: int


class Identification(BaseModel):
    """True positive identification rate at the threshold of a false positive one; None with too few unmated probes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    asked_fpir: float
    threshold: float | None
    fpir: float | None
    tpir: float | None
    mated_probes: int
    unmated_probes: int


def count_pairs(query: Embeddings, gallery: Embeddings, exclusion: Exclusion = Exclusion.NONE) -> PairCounts:
    """Count the scores of all pairs of two sets of unit vectors; memory does not grow with the number of pairs.

    Given one object twice, each two of its images are one pair, and none is paired with itself.

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
    """FNMR at a false match rate.

    Args:
        pairs: scores of the identities that are judged.
        rate: the false match rate asked for.
        threshold: one chosen before, on other identities; None: chosen on these.

    Raises:
        ValueError: there is no genuine pair.
    """
    if not pairs.genuine.total:
        raise ValueError("expected genuine pairs, found none")
    counts = {"genuine_pairs": pairs.genuine.total, "impostor_pairs": pairs.impostor.total}
    if not pairs.impostor.estimable(rate):
        return Verification(asked_fmr=rate, threshold=None, fmr=None, fnmr=None, **counts)
    threshold = pairs.impostor.threshold(rate) if threshold is None else np.ceil(threshold * _GRID) / _GRID
    return Verification(
        asked_fmr=rate,
        threshold=threshold,
        fmr=pairs.impostor.share_at_least(threshold),
        fnmr=1 - pairs.genuine.share_at_least(threshold),
        **counts,
    )


def identify(query: Embeddings, gallery: Embeddings, exclusion: Exclusion, rate: float) -> Identification:
    """Open-set identification: a probe with a positive left after exclusion is mated, every other is unmated.

    Raises:
        ValueError: there is no mated probe, or a score is outside [-1, 1].
    """
    best, right, mated = _best_match(query, gallery, exclusion)
    if not mated.any():
        raise ValueError(f"expected probes with a mate in the gallery, found none among {len(query)}")
    unmated = ScoreCounts.empty().plus(best[~mated & np.isfinite(best)])
    counts = {"mated_probes": int(mated.sum()), "unmated_probes": int((~mated).sum())}
    if rate * counts["unmated_probes"] < _LEAST_ERRORS:
        return Identification(asked_fpir=rate, threshold=None, fpir=None, tpir=None, **counts)
    # a probe whose gallery is empty scores nothing: it is unmated and never a false positive
    threshold = unmated.threshold(rate * counts["unmated_probes"] / max(1, unmated.total))
    return Identification(
        asked_fpir=rate,
        threshold=threshold,
        fpir=float((best[~mated] >= threshold).mean()),
        tpir=float((right & (best >= threshold))[mated].mean()),
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
    """The card's calibration of a modality pair.

    About 64 rates, spaced logarithmically from 1 down to one pair, each with the smallest score that at most this
    share of the impostor pairs reaches; the rate recorded is the share that reaches it.

    Args:
        impostor: scores of pairs of two people.
        query: modality of their first crop.
        gallery: modality of their second crop.
        data: name of the data set.
        real: whether no crop was translated.
        people: counts the same pairs by the two people, for intervals of the rates; without it there are none.

    Raises:
        ValueError: the scores are too few to give two different rates.
    """
    if impostor.total < 2:
        raise ValueError(f"expected impostor pairs to calibrate on, found {impostor.total}")
    asked = np.geomspace(1, 1 / impostor.total, _CALIBRATION_POINTS)
    points: dict[float, float] = {}  # rate → score
    for score in (impostor.threshold(rate) for rate in asked):
        points.setdefault(impostor.share_at_least(score), score)
    points.pop(0.0, None)
    if len(points) < 2:
        raise ValueError(f"{impostor.total} impostor pairs have one score only: nothing to calibrate on")
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
    """The impostor pairs of a query and a gallery set, to be counted by the two people of a pair."""

    query: Embeddings
    gallery: Embeddings

    @property
    def identities(self) -> int:
        """Number of people."""
        return len(self._names())

    def intervals(
        self, scores: Sequence[float], resamples: int = 400, seed: int = 0
    ) -> tuple[tuple[float, float], ...]:
        """95 % interval of the share of pairs at or above each score, from bootstrapping over people.

        Whole people are drawn with replacement: pairs that share a person are not independent. A pair of a person with
        a copy of itself is no impostor pair and stays out. The interval is for the rate among all people. The rate
        that is measured on as many other people varies as much itself and lies inside about 84 times in 100.
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
        drawn, total = drawn[total > 0], total[total > 0]  # a single person drawn every time makes no pair
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
    """Scores, same identity and kept, ``[q, G]`` each, a few queries at a time."""
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
    """Best score of each query (-inf without a gallery), whether its identity is right, whether a positive is left."""
    parts = []
    for scores, same, kept in _blocks(query, gallery, exclusion):
        allowed = np.where(kept, scores, np.float32(-np.inf))
        first = allowed.argmax(axis=1)[:, None]  # of equal ones the first in the gallery
        right = np.take_along_axis(same & kept, first, axis=1)
        parts.append((np.take_along_axis(allowed, first, axis=1)[:, 0], right[:, 0], (same & kept).any(axis=1)))
    best, right, mated = (np.concatenate(column) for column in zip(*parts, strict=True))
    return best, right, mated
