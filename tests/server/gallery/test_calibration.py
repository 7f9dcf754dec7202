"""Calibration on synthetic scores: promised rates against measured ones on people that were not calibrated on."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from models.card import Calibration, Modality
from server.gallery.calibration import calibrate_scores

DIMENSION = 24


def impostor_scores(people: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    """Return the scores of all pairs of different people, four crops each, and the people of each pair."""
    draw = np.random.default_rng(seed)
    centres = np.repeat(draw.normal(size=(people, DIMENSION)) + 0.3, 4, axis=0)
    vectors = centres + 0.5 * draw.normal(size=centres.shape)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    names = np.repeat(np.arange(people), 4)
    first, second = np.nonzero(np.triu(names[:, None] != names))
    scores = np.einsum("nd,nd->n", vectors[first], vectors[second]).astype(np.float32)
    return scores, names[first], names[second]


def calibrated(people: int = 120, seed: int = 0) -> Calibration:
    both = Modality.VISIBLE, Modality.VISIBLE
    return calibrate_scores(*impostor_scores(people, seed), *both, "synthetic", people)


@pytest.mark.parametrize("rate", [1e-1, 1e-2, 1e-3])
def test_promised_rates_hold_on_other_people_within_a_factor_of_two(rate: float) -> None:
    calibration, (scores, _, _) = calibrated(), impostor_scores(120, 1)
    threshold = np.quantile(scores, 1 - rate)
    promised, measured = calibration.false_match_rate(float(threshold)), float((scores >= threshold).mean())
    assert measured / 2 <= promised <= measured * 2
    interval = calibration.interval(float(threshold))
    assert interval is not None
    assert interval[0] <= promised <= interval[1]


@pytest.mark.parametrize("items", [100, 1000])
def test_expected_false_hits_are_those_measured_within_a_factor_of_two(items: int) -> None:
    calibration, (scores, _, _) = calibrated(), impostor_scores(120, 2)
    score = 0.55
    searches = np.random.default_rng(3).choice(scores, (300, items))
    measured = float((searches >= score).sum(axis=1).mean())
    assert measured > 0.1
    assert measured / 2 <= calibration.false_match_rate(score) * items <= measured * 2


def test_intervals_are_wider_than_independent_pairs_would_give() -> None:
    calibration = calibrated(people=30)
    score = calibration.scores[20]
    rate, interval = calibration.false_match_rate(score), calibration.interval(score)
    assert interval is not None
    independent = 2 * 1.96 * np.sqrt(rate / calibration.impostor_pairs)
    assert interval[1] - interval[0] > 2 * independent


def test_no_rate_is_below_one_pair_and_all_rates_are_those_of_the_pairs() -> None:
    scores, first, second = impostor_scores(12, 4)
    calibration = calibrate_scores(scores, first, second, Modality.VISIBLE, Modality.VISIBLE, "synthetic", 12)
    assert calibration.impostor_pairs == len(scores)
    assert min(calibration.rates) == pytest.approx(1 / len(scores))
    assert calibration.false_match_rate(1.0) == 1 / len(scores)
    for score, rate in zip(calibration.scores, calibration.rates, strict=True):
        assert rate == float((scores >= np.float32(score)).mean())
    for text, threshold in calibration.thresholds.items():
        assert threshold is None or float((scores >= np.float32(threshold)).mean()) <= float(text)
