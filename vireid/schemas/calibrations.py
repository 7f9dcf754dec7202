"""Calibrations: the data that false match rates were measured on."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from models.card import Modality
from vireid.schemas.base import Schema
from vireid.schemas.fields import Label, Time

__all__ = ["CalibrationDetails", "CalibrationRequest", "CalibrationUsed", "CalibrationsList", "RatePoint"]


class CalibrationUsed(Schema):
    """The calibration that the rates of a response are from."""

    data: str = Field(description="Data set or gallery whose pairs of different people were scored.")
    real: bool = Field(
        description="Whether cameras recorded all crops; false: infrared crops were translated from visible ones, or "
        "their origin was not recorded."
    )
    query: Modality
    gallery: Modality
    impostor_pairs: int = Field(description="Number of pairs of different people; no rate below 1/n is known.")
    identities: int | None = Field(description="Number of people in these pairs; null: not known.")
    interval: float | None = Field(
        description="Confidence level of the intervals, from resampling people; null: no intervals were measured."
    )
    source: Literal["model", "gallery"] = Field(
        description="`model`: from the model's card. `gallery`: measured on the gallery's own items."
    )
    version: int | None = Field(description="Version of the gallery's calibration; null: from the model's card.")


class CalibrationRequest(Schema):
    """How to find pairs of different people; without either field: items with different identities."""

    disjoint_cameras: list[Annotated[list[Label], Field(min_length=2, max_length=100)]] = Field(
        default=[],
        max_length=100,
        description="Lists of cameras: no person is seen by two cameras of one list, so their items are of different "
        "people.",
    )
    simultaneous: bool = Field(
        False,
        description="Items of one camera and modality with the same capture time are of different people. Set it only "
        "where the times tell frames apart, or at most one frame per second was stored.",
    )


class RatePoint(Schema):
    """The share of pairs of different people that score at least `score`."""

    score: float
    rate: float
    interval: tuple[float, float] | None


class CalibrationDetails(Schema):
    """A calibration of one pair of modalities, measured on a gallery."""

    version: int = Field(description="Grows by one with each measurement.")
    created_at: Time
    fingerprint: str = Field(description="Model that the scores are of.")
    method: str = Field(description="`identities`, `disjoint cameras`, `simultaneous` or the last two joined by `and`.")
    used: bool = Field(description="Whether searches use it: the newest of its modalities for the gallery's model.")
    query: Modality
    gallery: Modality
    impostor_pairs: int
    identities: int | None = Field(description="Number of people in the pairs; null: some items have no identity.")
    smallest_rate: float = Field(description="1/n of n pairs: no smaller rate is given.")
    thresholds: dict[str, float | None] = Field(description="Score by false match rate; null: too few pairs.")
    points: tuple[RatePoint, ...]


class CalibrationsList(Schema):
    """The calibrations of a gallery."""

    calibrations: tuple[CalibrationDetails, ...]
