"""False match rates of scores: choice of the calibration, rates with intervals, and the score of a rate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from models.card import Calibration, Card, Modality
from server.domain.types import Item
from server.domain.validation import InvalidRequest, invalid
from vireid.schemas.calibrations import CalibrationUsed

__all__ = ["Calibrations", "FittingCalibration", "RateEstimate", "is_drawn", "score_for", "score_for_false_hits"]

CONFIDENCE = 0.95
"""Confidence level of the intervals of a calibration."""

_BISECTION_STEPS = 60
_ROUNDING = 1e-9
"""Relative tolerance, so that a rate of the card is met by its own score."""
_TRANSLATION_WORDS = ("translated", "imitated")


@dataclass(frozen=True, slots=True)
class RateEstimate:
    """A false match rate with its interval. ``below``: the true rate is smaller than any that was measured."""

    rate: float
    interval: tuple[float, float] | None
    below: bool


@dataclass(frozen=True, slots=True)
class FittingCalibration:
    """The calibration of a pair of modalities, and its origin."""

    calibration: Calibration
    used: CalibrationUsed

    def estimate(self, score: float) -> RateEstimate:
        """Return the false match rate of a score; above all impostor scores it is the smallest rate, and ``below``."""
        rate = self.calibration.false_match_rate(score)
        return RateEstimate(rate, self.calibration.interval(score), score > self.calibration.scores[-1])


class Calibrations:
    """The calibrations that may apply to a search or comparison: those of a gallery and those of a model card."""

    def __init__(self, card: Card | None, own: Sequence[tuple[int, Calibration]] = ()) -> None:
        """``own``: those of the gallery with their versions, the newest first."""
        self._card, self._own = card, own

    def find(self, query: Modality | None, gallery: Modality) -> FittingCalibration | None:
        """Return the one that fits a pair of modalities.

        The newest of the gallery comes first, then one of the card: on real crops before translated ones. ``query``
        None (query images of both modalities) has none.
        """
        if query is None:
            return None
        for version, own in self._own:
            if (own.query, own.gallery) == (query, gallery):
                return FittingCalibration(own, _describe(own, own.data, real=own.real is True, version=version))
        if self._card is None or (found := self._card.calibration(query, gallery)) is None:
            return None
        real, data = _origin(found, self._card)
        return FittingCalibration(found, _describe(found, data, real=real, version=None))

    def require(self, field: str, query: Modality, gallery: Modality) -> FittingCalibration:
        """Return the one that fits.

        Raises:
            InvalidRequest: there is none; the error names ``field``.
        """
        found = self.find(query, gallery)
        if found is None:
            model = "the gallery's model, which is not loaded," if self._card is None else f"model {self._card.name}"
            raise invalid(field, f"needs a calibration {query} → {gallery}, which {model} does not have")
        return found


def is_drawn(item: Item) -> bool:
    """Whether an item is a drawing (attribute ``source`` = ``drawn``, as ``vireid demo`` sets it).

    No calibration is measured on drawings, so their scores have no rate.
    """
    return item.attributes.get("source") == "drawn"


def score_for(calibration: Calibration, rate: float, field: str = "query.max_false_match_rate") -> float:
    """Return the smallest float32 score whose false match rate is at most ``rate``, to a relative error of 1e-9.

    Raises:
        InvalidRequest: the calibration has too few pairs for the rate; the error names ``field``.
    """
    if rate < calibration.smallest_rate:
        raise _too_few_pairs(calibration, field, f"1/{calibration.impostor_pairs}")
    return _invert(calibration, rate)


def score_for_false_hits(calibration: Calibration, expected: float, searched: int) -> float:
    """Return the smallest score at which at most ``expected`` of ``searched`` items are expected to be false hits.

    Raises:
        InvalidRequest: the calibration has too few pairs for such a number.
    """
    field = "query.max_expected_false_hits"
    if expected < searched * calibration.smallest_rate:
        least = f"{searched * calibration.smallest_rate:.3g} among {searched} items"
        raise _too_few_pairs(calibration, field, least)
    return _invert(calibration, min(1.0, expected / searched)) if searched else -1.0


def _too_few_pairs(calibration: Calibration, field: str, least: str) -> InvalidRequest:
    """Return the error of a limit that so few impostor pairs cannot show."""
    return invalid(field, f"must be at least {least}: the calibration has {calibration.impostor_pairs} impostor pairs")


def _describe(calibration: Calibration, data: str, *, real: bool, version: int | None) -> CalibrationUsed:
    return CalibrationUsed(
        data=data,
        real=real,
        query=calibration.query,
        gallery=calibration.gallery,
        impostor_pairs=calibration.impostor_pairs,
        identities=calibration.identities,
        interval=CONFIDENCE if calibration.intervals else None,
        source="model" if version is None else "gallery",
        version=version,
    )


def _origin(calibration: Calibration, card: Card) -> tuple[bool, str]:
    """Return whether a calibration of a card is on real crops, and its data by a name that says so.

    Cards written before the origin was recorded say nothing: pairs of visible crops are real, pairs with infrared ones
    do not count as real.
    """
    infrared = Modality.INFRARED in (calibration.query, calibration.gallery)
    real = not infrared if calibration.real is None else calibration.real
    if real or any(word in calibration.data for word in _TRANSLATION_WORDS):
        return real, calibration.data
    remarks = [source.remark for source in card.training.data if calibration.data.startswith(source.name)]
    known = calibration.real is False or any(word in remark for remark in remarks for word in _TRANSLATION_WORDS)
    origin = "infrared translated from visible crops" if known else "origin of the infrared crops not recorded"
    return False, f"{calibration.data} ({origin})"


def _invert(calibration: Calibration, rate: float) -> float:
    def holds(score: float) -> bool:
        return calibration.false_match_rate(score) <= rate * (1 + _ROUNDING)

    low, high = calibration.scores[0], math.nextafter(calibration.scores[-1], math.inf)
    if holds(low):
        return -1.0
    for _ in range(_BISECTION_STEPS):  # the rate does not increase with the score, except by rounding
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    rounded = np.float32(high)
    return float(rounded if float(rounded) >= high else np.nextafter(rounded, np.float32(np.inf)))
