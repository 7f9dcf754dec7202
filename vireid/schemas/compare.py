"""Comparison of two crops."""

from __future__ import annotations

from pydantic import Field

from models.card import Modality
from vireid.schemas.base import Schema
from vireid.schemas.calibrations import CalibrationUsed
from vireid.schemas.embeddings import EmbeddingsForm
from vireid.schemas.fields import Upload

__all__ = ["CompareForm", "Comparison"]


class CompareForm(EmbeddingsForm):
    """Two crops to compare."""

    images: list[Upload] = Field(min_length=2, max_length=2)


class Comparison(Schema):
    """Score of two crops and its false match rate."""

    model: str
    fingerprint: str
    modality: tuple[Modality, ...]
    score: float = Field(description="Cosine, from -1 to 1.")
    false_match_rate: float | None = Field(
        description="Share of pairs of different people that score at least as high; null: the model has no "
        "calibration for these modalities."
    )
    false_match_rate_interval: tuple[float, float] | None = Field(
        None, description="Interval of `false_match_rate`, from resampling people; null: not measured."
    )
    below: bool = Field(
        False,
        description="Whether no pair of different people scored as high: the rate is then the smallest one that the "
        "calibration supports, and the true rate is below it.",
    )
    calibration: CalibrationUsed | None = Field(
        None, description="What the rate was measured on; null: no calibration fits these modalities."
    )
    same_at: dict[str, bool | None] | None = Field(
        description="Whether the score passes the threshold, by false match rate; null: the calibration has too few "
        "pairs for this rate."
    )
