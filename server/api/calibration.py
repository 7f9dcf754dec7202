"""Scores as false match rates, and back."""

from __future__ import annotations

import math

import numpy as np

from models.card import Calibration, Card, Modality
from server.api.errors import invalid

__all__ = ["rate_of", "score_for"]

_HALVINGS = 60
_ROUNDING = 1e-9
"""Relative; a rate that stands in the card is met by the score that stands beside it."""


def rate_of(card: Card, query: Modality | None, gallery: Modality, score: float) -> float | None:
    """Share of impostor pairs that score at least ``score``; None where the card has no calibration of that pair."""
    calibration = None if query is None else card.calibration(query, gallery)
    return None if calibration is None else calibration.false_match_rate(score)


def score_for(card: Card, query: Modality, gallery: Modality, rate: float) -> float:
    """The smallest float32 score whose false match rate is at most ``rate``, to a billionth of it.

    Raises:
        InvalidRequest: the card has no calibration of that pair, or it rests on too few pairs to tell such a rate.
    """
    field = "query.max_false_match_rate"
    calibration = card.calibration(query, gallery)
    if calibration is None:
        raise invalid(field, f"needs a calibration {query} → {gallery}, which model {card.name} does not have")
    if rate < 1 / calibration.impostor_pairs:
        raise invalid(field, f"must be at least 1/{calibration.impostor_pairs}: the calibration has no more pairs")
    return _invert(calibration, rate)


def _invert(calibration: Calibration, rate: float) -> float:
    def holds(score: float) -> bool:
        return calibration.false_match_rate(score) <= rate * (1 + _ROUNDING)

    low, high = calibration.scores[0], math.nextafter(calibration.scores[-1], math.inf)
    if holds(low):
        return -1.0
    for _ in range(_HALVINGS):  # the rate never rises with the score, but for rounding
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    rounded = np.float32(high)
    return float(rounded if float(rounded) >= high else np.nextafter(rounded, np.float32(np.inf)))
