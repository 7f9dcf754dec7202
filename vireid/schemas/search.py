"""Search of a gallery."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, Json, ValidationInfo, field_validator, model_validator

from models.card import Modality
from vireid.schemas.base import Schema
from vireid.schemas.calibrations import CalibrationUsed
from vireid.schemas.fields import CropWarning, Id, ModalityChoice, UnitVector, Upload
from vireid.schemas.filters import Filter
from vireid.schemas.items import ItemSummary
from vireid.schemas.problems import Problem

__all__ = [
    "MAX_K",
    "MAX_MARKS",
    "MAX_QUERY_IMAGES",
    "MAX_SEARCHES",
    "Feedback",
    "Fusion",
    "RerankOptions",
    "SearchAnswer",
    "SearchAnswers",
    "SearchBatch",
    "SearchByStored",
    "SearchForm",
    "SearchGroup",
    "SearchHit",
    "SearchOutcome",
    "SearchQuery",
    "TimingMs",
]

MAX_K = 1000
MAX_QUERY_IMAGES = 16
MAX_SEARCHES = 64
MAX_MARKS = 100


class Fusion(StrEnum):
    """How several images of one person are combined into one ranking.

    `mean`: by the normalised mean of their embeddings. `max`: by the highest score of any image.
    """

    MEAN = "mean"
    MAX = "max"


class RerankOptions(Schema):
    """k-reciprocal re-ranking (Zhong et al., CVPR 2017), computed among the best candidates."""

    candidates: int = Field(100, ge=1, le=MAX_K, description="Number of nearest items to re-rank.")
    k1: int = Field(20, ge=1, le=MAX_K, description="Neighbours checked for being reciprocal.")
    k2: int = Field(6, ge=1, le=MAX_K, description="Neighbours whose encodings are averaged.")
    lambda_: float = Field(0.3, ge=0, le=1, description="Weight of the original distance.")


def _rerank_options(choice: object) -> object:
    return {True: {}, False: None}[choice] if isinstance(choice, bool) else choice


class Feedback(Schema):
    """Items of the gallery that a person has compared with the query: by Rocchio's rule they re-weight the query."""

    right: list[Id] = Field(default=[], max_length=MAX_MARKS, description="Items that show the person.")
    wrong: list[Id] = Field(default=[], max_length=MAX_MARKS, description="Items that show another person.")

    @model_validator(mode="after")
    def _check_disjoint(self) -> Self:
        if both := sorted({*self.right} & {*self.wrong}):
            raise ValueError(f"marks {both[0]} both right and wrong")
        return self


class SearchQuery(Schema):
    """Options of a search."""

    k: int = Field(10, ge=1, le=MAX_K, description="Maximum number of hits in the response, one page of the ranking.")
    fusion: Fusion = Field(Fusion.MEAN, description="How several images of the person are combined into one ranking.")
    group_by: Literal["identity"] | None = None
    rerank: Annotated[
        RerankOptions | None, BeforeValidator(_rerank_options, json_schema_input_type=bool | RerankOptions | None)
    ] = Field(None, description="Re-rank the best candidates by their neighbours; cannot be combined with `group_by`.")
    paginate: bool = Field(False, description="Return `next_cursor`, the cursor of the next page.")
    cursor: str | None = Field(
        None,
        description="`next_cursor` of the previous page of the same search; cannot be combined with `group_by` or "
        "`rerank`.",
    )
    min_score: float | None = Field(None, ge=-1, le=1)
    max_false_match_rate: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Requires a filter on one modality and a calibration for the modality pair.",
    )
    max_expected_false_hits: float | None = Field(
        None,
        gt=0,
        description="Only hits with at most so many expected false hits; requires what `max_false_match_rate` does.",
    )
    feedback: Feedback | None = Field(
        None,
        description="Marked items, which re-weight the query. Scores have no rates then: none were measured for "
        "re-weighted queries.",
    )
    exact: bool = Field(
        False, description="Score every item that passes the filter, even where the server searches approximately."
    )
    filter: Filter = Filter()

    @field_validator("rerank", "cursor")
    @classmethod
    def _check_combination(cls, value: object, info: ValidationInfo) -> object:
        for other in ("group_by", "rerank"):
            if value is not None and info.data.get(other) is not None:
                raise ValueError(f"cannot be combined with {other}")
        return value


class SearchForm(Schema):
    """A search by images of one person."""

    images: list[Upload] = Field(min_length=1, max_length=MAX_QUERY_IMAGES)
    modality: list[ModalityChoice] = Field(
        default=[ModalityChoice.AUTO], min_length=1, description="One value for all images, or one for each."
    )
    query: Json[SearchQuery] = SearchQuery()


class SearchByStored(Schema):
    """A search by an item of the gallery, or by a precomputed embedding and its modality."""

    query: SearchQuery = SearchQuery()
    item_id: Id | None = None
    vector: UnitVector | None = None
    modality: Modality | None = Field(None, description="Modality of the vector.")
    fingerprint: str | None = Field(
        None, description="Fingerprint of the model that made the vector; if given, it must be the gallery's."
    )

    @model_validator(mode="after")
    def _check_source(self) -> Self:
        if (self.item_id is None) == (self.vector is None):
            raise ValueError("exactly one of item_id and vector is expected")
        if (self.vector is None) != (self.modality is None):
            raise ValueError("modality is required with vector, and not allowed without it")
        if self.vector is None and self.fingerprint is not None:
            raise ValueError("fingerprint is allowed with vector only")
        return self


class SearchBatch(Schema):
    """Searches of one gallery, each by an item or a precomputed embedding."""

    searches: list[Any] = Field(
        min_length=1,
        max_length=MAX_SEARCHES,
        json_schema_extra={"items": {"$ref": "#/components/schemas/SearchByStored"}},
    )


class SearchHit(Schema):
    """A hit."""

    rank: int = Field(description="Position in the ranking, counted from 1 across all pages.")
    score: float = Field(description="Cosine, from -1 to 1.")
    false_match_rate: float | None = Field(
        description="Share of pairs of different people that score at least as high; null: no calibration fits these "
        "modalities and this kind of data."
    )
    false_match_rate_interval: tuple[float, float] | None = Field(
        None, description="Interval of `false_match_rate`, from resampling people; null: not measured."
    )
    below: bool = Field(
        False,
        description="Whether no pair of different people scored as high: the rate is then the smallest one that the "
        "calibration supports, and the true rate is below it.",
    )
    expected_false_hits: float | None = Field(
        None,
        description="Number of items of other people expected to score at least as high: `false_match_rate` times "
        "`searched`.",
    )
    rerank_distance: float | None = Field(description="From 0 to 1; null: not re-ranked.")
    item: ItemSummary


class SearchGroup(Schema):
    """Hits of one identity; the score is that of the best hit."""

    identity: str | None
    score: float
    hits: tuple[SearchHit, ...]


class TimingMs(Schema):
    """Milliseconds by processing stage."""

    queue: float
    decode: float
    embed: float
    search: float
    total: float


class SearchAnswer(Schema):
    """Ranking of the items that pass the filter."""

    gallery: str
    model: str
    fingerprint: str
    modality: tuple[Modality, ...] = Field(description="Modality of each query image, as stated or detected.")
    warnings: tuple[tuple[CropWarning, ...], ...] = Field(
        description="Possible quality problems of each query image; empty where no image was processed, as for a "
        "further page."
    )
    searched: int = Field(description="Number of items that passed the filter.")
    exact: bool = Field(
        description="Whether every item that passed was scored, so that no better hit exists (behind the cursor)."
    )
    recall: float | None = Field(
        description="Share of the nearest items that an approximate search finds, measured on this gallery; null: "
        "the search was exact."
    )
    reranked: bool
    calibration: CalibrationUsed | None = Field(
        None,
        description="What the rates were measured on; null: no calibration fits. Of hits of both modalities, that of "
        "the first hit.",
    )
    calibrations: dict[Modality, CalibrationUsed] = Field(
        default={}, description="The calibration of the hits, by their modality."
    )
    hits: tuple[SearchHit, ...]
    groups: tuple[SearchGroup, ...] | None
    next_cursor: str | None = Field(
        description="Cursor of the next page, at most 200 characters; null: this is the last page, the search has no "
        "pages, or neither `paginate` nor `cursor` was given."
    )
    timing_ms: TimingMs


class SearchOutcome(Schema):
    """Answer to search `index`, or its error."""

    index: int
    answer: SearchAnswer | None = None
    error: Problem | None = None


class SearchAnswers(Schema):
    """Outcome of each search, in the order of the request."""

    answers: tuple[SearchOutcome, ...]
