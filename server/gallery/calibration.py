"""Calibration of a gallery: impostor scores among its own items, as false match rates with intervals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.card import THRESHOLD_RATES, Calibration, Modality
from server.domain.validation import invalid
from server.gallery.columns import GalleryView

__all__ = ["ImpostorRule", "calibrate_scores", "calibrate_view"]

Floats = NDArray[np.float32]
Codes = NDArray[np.int64]
Mask = NDArray[np.bool_]

_MAX_ITEMS = 1500  # of each modality
_MAX_PAIRS = 1_000_000
_LEAST_PAIRS = 10
_POINTS = 64
_RESAMPLES = 200
_LEAST_ERRORS = 10  # a threshold is given where this many pairs are expected to cross it
_MINUTE = 60_000_000  # microseconds
_PAIRS = ((Modality.VISIBLE, Modality.VISIBLE), (Modality.VISIBLE, Modality.INFRARED), (Modality.INFRARED,) * 2)


@dataclass(frozen=True, slots=True)
class ImpostorRule:
    """Which pairs of items are known to be of different people.

    With ``disjoint_cameras`` (lists of cameras that no person passes two of): items of two cameras of a list. With
    ``simultaneous``: items of one camera and modality that were captured at the same time. Without either: items with
    different identities. Items with the same identity are never a pair.
    """

    disjoint_cameras: Sequence[Sequence[str]] = ()
    simultaneous: bool = False

    @property
    def method(self) -> str:
        """The rule as text."""
        chosen = ["disjoint cameras"] * bool(self.disjoint_cameras) + ["simultaneous"] * self.simultaneous
        return " and ".join(chosen) or "identities"


def calibrate_view(view: GalleryView, rule: ImpostorRule, data: str) -> list[Calibration]:
    """Measure the calibration of every pair of modalities that has enough impostor pairs.

    At most 1,500 items of each modality and a million pairs are drawn at random, always the same ones of a view.

    Raises:
        InvalidRequest: no pair of modalities has enough impostor pairs.
    """
    draw = np.random.default_rng(0)
    samples = {modality: _sample(view, modality, rule, draw) for modality in Modality}
    found: list[Calibration] = []
    for query, gallery in _PAIRS:
        rows, others = samples[query], samples[gallery]
        impostor = _impostors(view, rows, others, rule)
        if query is gallery:
            impostor = np.triu(impostor, 1)
        first, second = np.nonzero(impostor)
        if len(first) > _MAX_PAIRS:
            chosen = draw.choice(len(first), _MAX_PAIRS, replace=False)
            first, second = first[chosen], second[chosen]
        if len(first) < _LEAST_PAIRS:
            continue
        scores = (view.index.vectors(rows) @ view.index.vectors(others).T)[first, second]
        people = _identities(view, rows[first], others[second])
        groups = _groups(view, np.concatenate([rows[first], others[second]]))
        halves = groups[: len(first)], groups[len(first) :]
        one = calibrate_scores(scores, *halves, query, gallery, data, people)
        found += [one] if query is gallery else [one, one.model_copy(update={"query": gallery, "gallery": query})]
    if not found:
        raise invalid(
            "gallery", f"has fewer than {_LEAST_PAIRS} pairs of items known to be of different people ({rule.method})"
        )
    return found


def calibrate_scores(
    scores: Floats, first: Codes, second: Codes, query: Modality, gallery: Modality, data: str, people: int | None
) -> Calibration:
    """Return the calibration of impostor scores ``[pairs]``.

    ``first`` and ``second`` number the groups of the two items of a pair: pairs are not independent, so the intervals
    come from drawing whole groups with replacement.
    """
    falling = np.sort(scores)[::-1]
    count = len(falling)
    asked = np.maximum(1, np.floor(np.geomspace(1, 1 / count, _POINTS) * count + 1e-9)).astype(np.int64)
    points: dict[float, float] = {}  # rate → score
    for score in falling[asked - 1].tolist():
        points.setdefault(_count_at_least(falling, score) / count, score)
    if len(points) < 2:
        raise invalid("gallery", "has impostor pairs of one score only")
    levels = np.array(list(points.values()), np.float32)
    return Calibration(
        query=query,
        gallery=gallery,
        data=data,
        real=True,
        impostor_pairs=count,
        identities=people,
        rates=tuple(points),
        scores=tuple(points.values()),
        intervals=tuple(_intervals(scores, first, second, levels, np.array(list(points)))),
        thresholds={str(rate): _threshold(falling, rate) for rate in THRESHOLD_RATES},
    )


def _count_at_least(falling: Floats, score: float) -> int:
    return int(np.searchsorted(-falling, -np.float32(score), side="right"))


def _threshold(falling: Floats, rate: float) -> float | None:
    if rate * len(falling) < _LEAST_ERRORS:
        return None
    return float(np.nextafter(falling[int(rate * len(falling))], np.float32(np.inf)))


def _intervals(
    scores: Floats, first: Codes, second: Codes, levels: Floats, rates: NDArray[np.float64]
) -> Iterator[tuple[float, float]]:
    """Yield the 95 % interval of the share of pairs at or above each of the rising ``levels``."""
    reached = np.searchsorted(levels, scores, side="right")  # number of levels that a pair reaches
    groups, within = int(max(first.max(), second.max())) + 1, first == second
    draw = np.random.default_rng(0)
    shares = []
    for _ in range(_RESAMPLES):
        drawn = np.bincount(draw.integers(groups, size=groups), minlength=groups).astype(np.float64)
        weights = np.where(within, drawn[first], drawn[first] * drawn[second])
        if total := weights.sum():
            counts = np.bincount(reached, weights, minlength=len(levels) + 1)
            shares.append(np.cumsum(counts[::-1])[::-1][1:] / total)
    low, high = np.percentile(np.array(shares), (2.5, 97.5), axis=0) if shares else (rates, rates)
    ends = zip(np.minimum(low, rates).tolist(), np.minimum(1, np.maximum(high, rates)).tolist(), strict=True)
    yield from ends


def _sample(view: GalleryView, modality: Modality, rule: ImpostorRule, draw: np.random.Generator) -> Codes:
    """Return rows of a modality that the rule can pair. All items of one camera and time are drawn together."""
    usable = view.alive & (view.modality == modality.index)
    usable &= ~view.attribute_sets.table_of_any({"source": "drawn"})[view.attributes]
    chosen = np.zeros(len(usable), np.bool_)
    for cameras in rule.disjoint_cameras:
        chosen |= view.cameras.table(cameras)[view.camera]
    unit = np.arange(len(usable))
    if rule.simultaneous:
        dated = usable & (view.camera > 0) & (view.captured_at != np.iinfo(np.int64).min)
        _, unit, counts = np.unique(
            np.stack([view.camera, view.captured_at, view.modality], 1), axis=0, return_inverse=True, return_counts=True
        )
        unit = unit.reshape(-1)
        chosen |= dated & (counts[unit] > 1)
    elif not rule.disjoint_cameras:
        chosen = view.identity > 0
    rows = np.flatnonzero(usable & chosen)
    order = draw.permutation(int(unit.max()) + 1 if len(unit) else 0)
    return rows[np.argsort(order[unit[rows]], kind="stable")][:_MAX_ITEMS]


def _impostors(view: GalleryView, rows: Codes, others: Codes, rule: ImpostorRule) -> Mask:
    """Return which pairs are of different people, ``[rows, others]``."""
    identity, other = view.identity[rows][:, None], view.identity[others]
    differs: Mask = (identity != other) | (identity == 0)
    camera, second = view.camera[rows][:, None], view.camera[others]
    if rule.method == "identities":
        return differs
    known: Mask = np.zeros(differs.shape, np.bool_)
    for cameras in rule.disjoint_cameras:
        table = view.cameras.table(cameras)
        known |= table[camera] & table[second] & (camera != second)
    if rule.simultaneous:
        time, other_time = view.captured_at[rows][:, None], view.captured_at[others]
        same_modality = view.modality[rows][:, None] == view.modality[others]
        same_time = (time == other_time) & (time != np.iinfo(np.int64).min)
        known |= same_time & same_modality & (camera == second) & (camera > 0)
    known &= differs
    return known


def _groups(view: GalleryView, rows: Codes) -> Codes:
    """Number the groups that items are drawn in: by identity, else by camera and minute, else each item."""
    identity = view.identity[rows].astype(np.int64)
    minute = view.captured_at[rows] // _MINUTE
    dated = (identity == 0) & (view.camera[rows] > 0) & (view.captured_at[rows] != np.iinfo(np.int64).min)
    single = (identity == 0) & ~dated
    keys = [identity, np.where(dated, view.camera[rows], 0), np.where(dated, minute, 0), np.where(single, rows, -1)]
    _, groups = np.unique(np.stack(keys, 1), axis=0, return_inverse=True)
    return groups.reshape(-1).astype(np.int64)


def _identities(view: GalleryView, first: Codes, second: Codes) -> int | None:
    """Count the people of the pairs; None if some items have no identity."""
    codes = np.unique(np.concatenate([view.identity[first], view.identity[second]]))
    return None if codes[0] == 0 else len(codes)
