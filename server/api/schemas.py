"""What goes over the wire. Every model refuses unknown fields."""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from fastapi import Path, UploadFile
from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, Json, model_validator
from starlette.datastructures import UploadFile as FormFile

from models.card import Card, Modality
from server.access import Key, Scope
from server.gallery.types import Filter, Fusion, Item, Scalar, WriteStatus

__all__ = [
    "MAX_K",
    "MAX_PAGE",
    "MAX_QUERY_IMAGES",
    "AuditEntry",
    "AuditPage",
    "CompareForm",
    "Comparison",
    "Deleted",
    "EmbeddingFailure",
    "EmbeddingRow",
    "Embeddings",
    "EmbeddingsForm",
    "FieldError",
    "GalleriesPage",
    "GalleryChanges",
    "GalleryFacts",
    "GalleryName",
    "GalleryReadiness",
    "ItemChanges",
    "ItemFacts",
    "ItemFields",
    "ItemFilter",
    "ItemId",
    "ItemSelection",
    "ItemsForm",
    "ItemsPage",
    "KeyFacts",
    "KeyWithSecret",
    "KeysPage",
    "Limits",
    "ModalityChoice",
    "ModelReadiness",
    "ModelsList",
    "NewFields",
    "NewGallery",
    "NewKey",
    "Page",
    "Problem",
    "Readiness",
    "SearchAnswer",
    "SearchByStored",
    "SearchFilter",
    "SearchForm",
    "SearchGroup",
    "SearchHit",
    "SearchQuery",
    "TimingMs",
    "VectorFields",
    "VectorItems",
    "VectorOrigin",
    "WriteResult",
    "Written",
]

MAX_K = 1000
MAX_QUERY_IMAGES = 16
MAX_PAGE = 1000

_LENGTH_TOLERANCE = 1e-3
_DATE_AND_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:")


def _file(part: object) -> object:
    if not isinstance(part, FormFile):
        raise ValueError("must be a file")
    return part


def _of_unit_length(values: list[float]) -> list[float]:
    length = math.hypot(*values)
    if not abs(length - 1) <= _LENGTH_TOLERANCE:
        raise ValueError(f"has length {length:.4g}; a unit vector is expected")
    return values


def _not_dots(value: str) -> str:
    if value in (".", ".."):  # clients and proxies would take them out of a path
        raise ValueError("must not be . or ..")
    return value


def _rfc_3339(value: object) -> object:
    if not isinstance(value, datetime) and not (isinstance(value, str) and _DATE_AND_TIME.match(value)):
        raise ValueError("must be a time, RFC 3339, such as 2026-11-21T08:30:00Z")
    return value


def _in_utc(time: datetime) -> datetime:
    try:
        return time.astimezone(UTC)
    except OverflowError:
        raise ValueError("is beyond the calendar") from None


Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]{1,128}$", examples=["cam2-000187"]), AfterValidator(_not_dots)]
GalleryName = Annotated[Id, Path(description="Name of the gallery.")]
ItemId = Annotated[Id, Path(description="Id of the item.")]
Label = Annotated[str, Field(min_length=1, max_length=256)]
Time = Annotated[AwareDatetime, BeforeValidator(_rfc_3339), AfterValidator(_in_utc)]
Upload = Annotated[UploadFile, BeforeValidator(_file)]
UnitVector = Annotated[
    list[float], Field(min_length=1, max_length=65536, description="Of length 1."), AfterValidator(_of_unit_length)
]


def _small(attributes: Mapping[str, Scalar]) -> Mapping[str, Scalar]:
    if len(attributes) > 32:
        raise ValueError(f"has {len(attributes)} entries; at most 32 are taken")
    if any(len(key) > 64 or (isinstance(value, str) and len(value) > 256) for key, value in attributes.items()):
        raise ValueError("has a name longer than 64 or a text longer than 256 characters")
    return attributes


JsonScalar = Annotated[bool, Field(strict=True)] | Annotated[int, Field(strict=True)] | float | str
Attributes = Annotated[dict[str, JsonScalar], AfterValidator(_small)]


class Wire(BaseModel):
    """Base of everything that is sent or received."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())


class Facts(Wire):
    """What a domain object of the same field names holds."""

    model_config = ConfigDict(from_attributes=True)

    @classmethod
    def of(cls, source: object) -> Self:
        """Translate."""
        return cls.model_validate(source)


class Page(Wire):
    """Which part of a list to answer."""

    limit: int = Field(100, ge=1, le=MAX_PAGE, description="Entries of one page.")
    cursor: str | None = Field(None, max_length=512, description="`next_cursor` of the page before.")


class ModalityChoice(StrEnum):
    """What kind of light made a crop; `auto` decides from the pixels."""

    VISIBLE = "visible"
    INFRARED = "infrared"
    AUTO = "auto"

    @property
    def stated(self) -> Modality | None:
        """The modality; None for ``auto``."""
        return None if self is ModalityChoice.AUTO else Modality(self.value)


# Errors


class FieldError(Wire):
    """One offending field or file."""

    field: str = Field(examples=["query.k"])
    detail: str = Field(examples=["must be at most 1000"])


class Problem(Wire):
    """RFC 9457 problem details."""

    type: str = Field(examples=["urn:vireid:problem:gallery-not-found"])
    title: str
    status: int
    detail: str
    instance: str | None = Field(None, description="Path of the request.")
    request_id: str | None = None
    errors: list[FieldError] = Field(default=[], description="Each offending field or file.")


# Service


class ModelReadiness(Wire):
    """What really runs."""

    name: str
    fingerprint: str
    provider: str
    precision: str


class GalleryReadiness(Wire):
    """Sequence numbers of the last change; equal when searches see all that is stored."""

    store_sequence: int
    index_sequence: int


class Readiness(Wire):
    """Facts, not promises."""

    ready: bool
    reasons: list[str]
    models: list[ModelReadiness]
    galleries: dict[str, GalleryReadiness] | None = Field(description="By name; null where names need a key.")
    queue_depth: int
    version: str


class Limits(Wire):
    """Every limit a client must respect."""

    max_images: int = Field(description="Images in one request.")
    max_query_images: int = Field(description="Images of one search.")
    max_image_bytes: int
    max_body_bytes: int
    max_pixels: int = Field(description="Width times height of one image.")
    max_in_flight: int = Field(description="Images being worked on at once, of all clients; beyond it: 429.")
    max_k: int
    max_page: int = Field(description="Largest `limit` of a list.")
    formats: list[str]


class ModelsList(Wire):
    """The loaded models."""

    models: list[Card]
    default: str


# Embeddings


class EmbeddingsForm(Wire):
    """Crops to embed."""

    images: list[Upload] = Field(min_length=1)
    modality: list[ModalityChoice] = Field(
        default=[ModalityChoice.AUTO], min_length=1, description="One for all, or one for each image."
    )
    model: str | None = Field(None, description="Name of the model; the default one without.")


class EmbeddingRow(Wire):
    """The vector of image `index`."""

    index: int
    modality: Modality
    vector: list[float]


class EmbeddingFailure(Wire):
    """Why image `index` has no vector."""

    index: int
    error: Problem


class Embeddings(Wire):
    """Unit vectors."""

    model: str
    fingerprint: str
    dimension: int
    embeddings: list[EmbeddingRow]
    errors: list[EmbeddingFailure] = Field(description="Images that failed; the others were embedded.")


class CompareForm(EmbeddingsForm):
    """Two crops."""

    images: list[Upload] = Field(min_length=2, max_length=2)


class Comparison(Wire):
    """How alike two crops are."""

    model: str
    fingerprint: str
    modality: list[Modality]
    score: float = Field(description="Cosine, from -1 to 1.")
    false_match_rate: float | None = Field(
        description="Share of pairs of different people that score at least this; null without a calibration."
    )
    same_at: dict[str, bool | None] | None = Field(
        description="False match rate → whether the score counts as the same person; null: calibrated on too few pairs."
    )


# Galleries


class NewGallery(Wire):
    """A gallery to create."""

    name: Id
    model: str | None = Field(None, description="Name of the model it is bound to; the default one without.")
    retention_days: int | None = Field(None, ge=1, le=36500)
    description: str | None = Field(None, max_length=1024)


class GalleryChanges(Wire):
    """What to change; a field that is left out stays, null clears."""

    retention_days: int | None = Field(None, ge=1, le=36500)
    description: str | None = Field(None, max_length=1024)


class GalleryFacts(Facts):
    """A gallery."""

    name: str
    model: str
    fingerprint: str
    dimension: int
    items: int
    created_at: datetime
    retention_days: int | None
    description: str | None


class GalleriesPage(Wire):
    """Galleries by name."""

    galleries: list[GalleryFacts]
    next_cursor: str | None


# Items


class ItemFacts(Facts):
    """What is known of a crop."""

    id: str
    identity: str | None
    modality: Modality
    camera: str | None
    captured_at: datetime | None
    attributes: dict[str, JsonScalar]


class NewFields(Wire):
    """What an item to add brings, however it comes by its embedding. The same id again replaces."""

    id: Id | None = Field(None, description="Generated when left out.")
    identity: Label | None = None
    camera: Label | None = None
    captured_at: Time | None = None
    attributes: Attributes = {}

    def item(self, modality: Modality) -> Item:
        """Translate, with a generated id where the caller gave none."""
        id_ = self.id or uuid.uuid4().hex
        return Item(id_, modality, self.identity, self.camera, self.captured_at, self.attributes)


class ItemFields(NewFields):
    """An item to add, with its image."""

    modality: ModalityChoice


class VectorFields(NewFields):
    """An item to add, with its ready-made embedding."""

    modality: Modality
    vector: UnitVector


class ItemsForm(Wire):
    """Images and, for each in the same order, its fields."""

    images: list[Upload] = Field(min_length=1)
    items: Json[list[Any]] = Field(
        description="JSON array, one object an image.",
        json_schema_extra={
            "contentMediaType": "application/json",
            "contentSchema": {"type": "array", "items": {"$ref": "#/components/schemas/ItemFields"}},
        },
    )


class VectorItems(Wire):
    """Ready-made embeddings."""

    items: list[Any] = Field(
        min_length=1,
        json_schema_extra={"items": {"$ref": "#/components/schemas/VectorFields"}},
    )


class VectorOrigin(Wire):
    """Where ready-made embeddings come from."""

    fingerprint: str | None = Field(
        None, description="Of the model that made the vectors; checked against the gallery's when given."
    )


class WriteResult(Wire):
    """What became of item `index`."""

    index: int
    id: str | None
    status: WriteStatus | Literal["failed"]
    modality: Modality | None = None
    error: Problem | None = None


class Written(Wire):
    """What became of each item of the request."""

    added: int
    updated: int
    failed: int
    items: list[WriteResult]


class ItemChanges(Wire):
    """What to change; a field that is left out stays, null clears."""

    identity: Label | None = None
    camera: Label | None = None
    captured_at: Time | None = None
    attributes: Attributes = {}


class ItemFilter(Wire):
    """Which items; several values of one field are alternatives, several fields hold together."""

    identity: list[Label] = Field(default=[], max_length=1000)
    camera: list[Label] = Field(default=[], max_length=1000)
    modality: Modality | None = None
    captured_from: Time | None = Field(None, description="Inclusive.")
    captured_to: Time | None = Field(None, description="Exclusive.")

    @property
    def where(self) -> Filter:
        """Translate."""
        return Filter(
            modality=self.modality,
            cameras=frozenset(self.camera) or None,
            identities=frozenset(self.identity) or None,
            captured_from=self.captured_from,
            captured_to=self.captured_to,
        )


class ItemSelection(ItemFilter, Page):
    """A page of the items that pass."""


class ItemsPage(Wire):
    """Items by id."""

    items: list[ItemFacts]
    next_cursor: str | None


class Deleted(Wire):
    """How many items are gone."""

    deleted: int


# Search


class SearchFilter(Wire):
    """Which items may be found; left out or null: any. The fields hold together."""

    modality: Literal["visible", "infrared", "opposite"] | None = Field(
        None, description="`opposite` of the query's, so that night finds day and day finds night."
    )
    cameras: list[Label] | None = Field(None, max_length=1000)
    exclude_cameras: list[Label] | None = Field(None, max_length=1000)
    identities: list[Label] | None = Field(None, max_length=1000)
    captured_from: Time | None = Field(None, description="Inclusive.")
    captured_to: Time | None = Field(None, description="Exclusive.")
    attributes: Attributes = {}

    def where(self, modality: Modality | None) -> Filter:
        """Translate; ``modality`` stands for this filter's own, once the query's is known."""
        return Filter(
            modality=modality,
            cameras=_set(self.cameras),
            exclude_cameras=_set(self.exclude_cameras),
            identities=_set(self.identities),
            captured_from=self.captured_from,
            captured_to=self.captured_to,
            attributes=self.attributes,
        )


class SearchQuery(Wire):
    """What to look for, and how."""

    k: int = Field(10, ge=1, le=MAX_K)
    rerank: Literal[False] = Field(False, description="Re-ranking is not in this version.")
    fusion: Fusion = Field(Fusion.MEAN, description="How several images of the person make one ranking.")
    group_by: Literal["identity"] | None = None
    min_score: float | None = Field(None, ge=-1, le=1)
    max_false_match_rate: float | None = Field(
        None, gt=0, le=1, description="Needs a filter on one modality and a model that is calibrated for the pair."
    )
    filter: SearchFilter = SearchFilter()


class SearchForm(Wire):
    """A search by images, all of one person."""

    images: list[Upload] = Field(min_length=1, max_length=MAX_QUERY_IMAGES)
    modality: list[ModalityChoice] = Field(
        default=[ModalityChoice.AUTO], min_length=1, description="One for all, or one for each image."
    )
    query: Json[SearchQuery] = SearchQuery()


class SearchByStored(Wire):
    """A search by an item of the gallery, or by a ready-made embedding and its modality."""

    query: SearchQuery = SearchQuery()
    item_id: Id | None = None
    vector: UnitVector | None = None
    modality: Modality | None = Field(None, description="Of the vector.")
    fingerprint: str | None = Field(None, description="Of the model that made the vector; checked when given.")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.item_id is None) == (self.vector is None):
            raise ValueError("exactly one of item_id and vector is expected")
        if (self.vector is None) != (self.modality is None):
            raise ValueError("modality goes with vector, and only with it")
        if self.vector is None and self.fingerprint is not None:
            raise ValueError("fingerprint goes with vector only")
        return self


class SearchHit(Wire):
    """A hit."""

    rank: int
    score: float
    false_match_rate: float | None
    item: ItemFacts


class SearchGroup(Wire):
    """Hits of one identity; its score is the best one's."""

    identity: str | None
    score: float
    hits: list[SearchHit]


class TimingMs(Wire):
    """Milliseconds by stage."""

    queue: float
    decode: float
    embed: float
    search: float
    total: float


class SearchAnswer(Wire):
    """The exact ranking of the items that pass the filter."""

    gallery: str
    model: str
    fingerprint: str
    modality: list[Modality] = Field(description="Of each query image, stated or decided.")
    searched: int = Field(description="Items that passed the filter.")
    hits: list[SearchHit]
    groups: list[SearchGroup] | None
    timing_ms: TimingMs


# Access


class NewKey(Wire):
    """A key to create."""

    name: str = Field(min_length=1, max_length=128)
    scopes: list[Scope] = Field(min_length=1)
    galleries: list[Id] | None = Field(None, min_length=1, description="Null: all galleries.")


class KeyFacts(Facts):
    """A key, without its secret."""

    id: str
    name: str
    scopes: Annotated[list[Scope], AfterValidator(sorted)]
    galleries: Annotated[list[str], AfterValidator(sorted)] | None
    created_at: datetime


class KeyWithSecret(KeyFacts):
    """A new key; its secret is shown this once."""

    secret: str

    @classmethod
    def created(cls, key: Key, secret: str) -> Self:
        """Translate."""
        return cls(**dict(KeyFacts.of(key)), secret=secret)


class KeysPage(Wire):
    """Keys."""

    keys: list[KeyFacts]
    next_cursor: str | None


class AuditEntry(Facts):
    """Who did what, when."""

    number: int
    at: datetime
    key_id: str | None
    action: str
    gallery: str | None
    detail: dict[str, Any]


class AuditPage(Wire):
    """Entries, newest first."""

    entries: list[AuditEntry]
    next_cursor: str | None


def _set(values: list[str] | None) -> frozenset[str] | None:
    return None if values is None else frozenset(values)
