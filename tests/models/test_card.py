"""The model card: strict, and honest about what a score means."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from models.card import Calibration, Card, DataName, InputSpec, Modality, Precision, TrainingFacts, Variant


def calibration(**changes: object) -> Calibration:
    fields: dict[str, object] = {
        "query": "visible", "gallery": "infrared", "data": "drawn", "impostor_pairs": 1000,
        "rates": (1.0, 0.1, 0.01, 0.001), "scores": (-0.2, 0.3, 0.5, 0.6), "thresholds": {"0.01": 0.5},
    }  # fmt: skip
    return Calibration.model_validate(fields | changes)


def card(**changes: object) -> Card:
    fields: dict[str, object] = {
        "name": "drawn", "method": "baseline", "backbone": "resnet18", "version": "1", "fingerprint": "0" * 64,
        "input": InputSpec(height=128, width=64, resize="bilinear"), "dimension": 512, "parameters": 1,
        "precisions": {Precision.FP32: Variant(file="model.onnx", sha256="1" * 64)},
        "training": TrainingFacts(
            data=(), command="vireid train", commit="", config={"epochs": 1}, seed=0, epochs=1, machine=""
        ),
        "calibrations": (calibration(),), "intended_use": "tests", "limits": "drawn people only",
    }  # fmt: skip
    return Card.model_validate(fields | changes)


def test_a_card_survives_the_disk(tmp_path: Path) -> None:
    card().write(tmp_path / "card.json")
    assert Card.read(tmp_path / "card.json") == card()


@pytest.mark.parametrize(
    "changes",
    [{"surprise": 1}, {"fingerprint": "short"}, {"name": "../up"}, {"dimension": 0}, {"schema_version": 2}],
)
def test_a_card_that_is_not_one_is_rejected(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        card(**changes)


def test_a_score_at_a_quantile_has_that_quantiles_rate() -> None:
    for rate, score in zip((1.0, 0.1, 0.01, 0.001), (-0.2, 0.3, 0.5, 0.6), strict=True):
        assert calibration().false_match_rate(score) == pytest.approx(rate)


def test_between_quantiles_the_rate_falls_geometrically() -> None:
    assert calibration().false_match_rate(0.4) == pytest.approx(math.sqrt(0.1 * 0.01))


def test_no_score_claims_less_than_one_pair_could_show() -> None:
    assert calibration().false_match_rate(0.99) == pytest.approx(1 / 1000)
    assert calibration(rates=(1.0, 0.0), scores=(0.0, 0.5)).false_match_rate(0.5) == pytest.approx(1 / 1000)


@pytest.mark.parametrize(
    "changes",
    [{"rates": (0.1, 0.2), "scores": (0.1, 0.2)}, {"rates": (0.2, 0.1), "scores": (0.2, 0.1)}, {"rates": (0.2, 0.1)}],
)
def test_a_calibration_that_is_not_monotone_is_rejected(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        calibration(**changes)


@pytest.mark.parametrize(
    "intervals", [((0.9, 1.0),), ((0.9, 1.0), (0.2, 0.1), (0.0, 0.1), (0.0, 0.01)), ((0.9, 1.1),) * 4]
)
def test_intervals_that_do_not_fit_the_rates_are_rejected(intervals: object) -> None:
    with pytest.raises(ValidationError):
        calibration(intervals=intervals)


def test_a_rate_has_the_interval_measured_at_its_score() -> None:
    measured = calibration(intervals=((1.0, 1.0), (0.05, 0.2), (0.002, 0.04), (0.001, 0.01)), identities=40)
    assert measured.interval(0.3) == pytest.approx((0.05, 0.2))
    assert measured.interval(0.4) == pytest.approx((math.sqrt(0.05 * 0.002), math.sqrt(0.2 * 0.04)))
    assert measured.interval(0.9) == pytest.approx((0.001, 0.01))
    assert calibration().interval(0.3) is None


def test_a_card_without_the_newer_calibration_fields_still_loads() -> None:
    old = card().model_dump(mode="json")
    for entry in old["calibrations"]:
        for field in ("real", "identities", "intervals"):
            del entry[field]
    assert Card.model_validate(old) == card()


def test_a_calibration_on_real_crops_is_preferred() -> None:
    translated, real = calibration(data="translated", real=False), calibration(data="thermal", real=True)
    described = card(calibrations=(translated, real))
    assert described.calibration(Modality.VISIBLE, Modality.INFRARED) == real
    assert described.calibrations_of(Modality.VISIBLE, Modality.INFRARED) == (translated, real)


def test_the_calibration_is_found_by_modality_pair() -> None:
    assert card().calibration(Modality.VISIBLE, Modality.INFRARED) == calibration()
    assert card().calibration(Modality.INFRARED, Modality.VISIBLE) is None
    assert Modality.VISIBLE.opposite is Modality.INFRARED


def test_the_former_term_for_held_out_identities_is_replaced() -> None:
    names = TypeAdapter(DataName)
    assert names.validate_python("kept-out identities, mirrored") == "held-out identities, mirrored"
    assert names.validate_python("people") == "people"
