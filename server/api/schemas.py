"""What goes over the wire. Every model refuses unknown fields."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, Self, TypeVar

from fastapi import Path
from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    Json,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from models.card import Card, Modality
from server.access import Key, Scope
from server.faults import FieldError
from server.fields import (
    Attributes,
    Id,
    ItemFields,
    JsonScalar,
    Label,
    ModalityChoice,
    NewFields,
    Time,
    UnitVector,
    VectorFields,
    Wire,
)
from server.gallery.types import CropWarning, Erasure, Filter, Fusion, VectorType, WriteStatus
from server.jobs.types import JobState

__all__ = [
    "MAX_K",
    "MAX_PAGE",
    "MAX_QUERY_IMAGES",
    "MAX_SEARCHES",
    "Alias",
    "AliasName",
    "AliasTarget",
    "AliasesList",
    "AuditEntry",
    "AuditPage",
    "CompareForm",
    "Comparison",
    "Deleted",
    "DuplicatePair",
    "DuplicatesPage",
    "DuplicatesSelection",
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
    "ImportDirectory",
    "ImportOptions",
    "ItemChanges",
    "ItemDetails",
    "ItemFacts",
    "ItemFields",
    "ItemFilter",
    "ItemId",
    "ItemSelection",
    "ItemsForm",
    "ItemsPage",
    "JobFacts",
    "JobFailure",
    "JobFailuresPage",
    "JobId",
    "JobSelection",
    "JobsPage",
    "KeyFacts",
    "KeyWithSecret",
    "KeysPage",
    "Left",
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
    "Receipt",
    "ReceiptId",
    "ReceiptsPage",
    "RerankOptions",
    "SearchAnswer",
    "SearchAnswers",
    "SearchBatch",
    "SearchByStored",
    "SearchFilter",
    "SearchForm",
    "SearchGroup",
    "SearchHit",
    "SearchOutcome",
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
MAX_SEARCHES = 64


def _file(part: object) -> object:
    if not isinstance(part, bytes):
        raise ValueError("must be a file")
    return part


AliasName = Annotated[Id, Path(description="Name of the alias.")]
GalleryName = Annotated[Id, Path(description="Name of the gallery, or an alias of it.")]
ItemId = Annotated[Id, Path(description="Id of the item.")]
JobId = Annotated[str, Path(description="Id of the job.", max_length=64)]
ReceiptId = Annotated[str, Path(description="Id of the receipt.", max_length=64)]
Upload = Annotated[
    bytes,
    BeforeValidator(_file),
    WithJsonSchema({"type": "string", "contentMediaType": "application/octet-stream"}),
]
Value = TypeVar("Value", bound=str)
SortedWarnings = Annotated[list[CropWarning], BeforeValidator(sorted)]


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


# Errors


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
    index: Literal["exact", "ivf"] = Field(
        description="`ivf`: searches look at a part of the items, but for exact ones."
    )
    recall: float | None = Field(description="Of the ten nearest items, the share that searches find; null: exact.")


class LoadProgress(Wire):
    """Items of a gallery that are in memory, and how many it has."""

    done: int
    total: int


class Readiness(Wire):
    """Facts, not promises."""

    ready: bool
    reasons: list[str]
    models: list[ModelReadiness]
    galleries: dict[str, GalleryReadiness] | None = Field(description="By name; null where names need a key.")
    load: dict[str, LoadProgress] | None = Field(
        description="Galleries that are still being loaded, by name; null where names need a key."
    )
    recall: float | None = Field(
        description="The least of the galleries that are searched approximately; null: all are exact."
    )
    queue_depth: int
    version: str


class Limits(Wire):
    """Every limit a client must respect."""

    max_images: int = Field(description="Images in one request.")
    max_query_images: int = Field(description="Images of one search.")
    max_image_bytes: int
    max_body_bytes: int
    max_import_bytes: int = Field(description="Bytes of the body of an import.")
    max_pixels: int = Field(description="Width times height of one image.")
    max_in_flight: int = Field(description="Images being worked on at once, of all clients; beyond it: 429.")
    max_k: int
    max_searches: int = Field(description="Searches in one request.")
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
    vector_type: VectorType = Field(
        VectorType.FLOAT32, description="How vectors are stored and compared: float16 takes half the memory."
    )
    thumbnails: bool = Field(True, description="Keep a small picture of each crop; needed to embed it anew later.")


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
    vector_type: VectorType
    thumbnails: bool


class Alias(Wire):
    """Another name for a gallery, wherever a path names one."""

    alias: str
    gallery: str


class AliasTarget(Wire):
    """The gallery that an alias is to stand for."""

    gallery: Id


class AliasesList(Wire):
    """Aliases by name."""

    aliases: list[Alias]


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
    warnings: SortedWarnings


class ItemDetails(ItemFacts):
    """All that is known of a crop."""

    content_sha256: str | None = Field(
        validation_alias="content",
        description="Of the uploaded file, or of a ready-made vector as little-endian float32; null: not known.",
    )


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
    warnings: list[CropWarning] = Field(default=[], description="What may be wrong with the crop; it was stored.")
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
    attributes: Attributes = Field(default={})


class ItemFilter(Wire):
    """Which items; several values of one field are alternatives, several fields hold together."""

    identity: list[Label] = Field(default=[], max_length=1000)
    camera: list[Label] = Field(default=[], max_length=1000)
    modality: Modality | None = None
    captured_from: Time | None = Field(None, description="Inclusive.")
    captured_to: Time | None = Field(None, description="Exclusive.")
    warning: list[CropWarning] = Field(default=[], max_length=len(CropWarning))

    @property
    def where(self) -> Filter:
        """Translate."""
        return Filter(
            modality=self.modality,
            cameras=frozenset(self.camera) or None,
            identities=frozenset(self.identity) or None,
            captured_from=self.captured_from,
            captured_to=self.captured_to,
            warnings=frozenset(self.warning) or None,
        )


class ItemSelection(ItemFilter, Page):
    """A page of the items that pass."""


class ItemsPage(Wire):
    """Items by id."""

    items: list[ItemDetails]
    next_cursor: str | None


class DuplicatesSelection(Page):
    """A page of the near duplicates."""

    min_score: float = Field(0.98, ge=-1, le=1, description="Least cosine.")
    modality: Modality | None = Field(None, description="Only pairs of this modality.")


class DuplicatePair(Wire):
    """Two items that are nearly the same; `a` was stored first."""

    a: ItemFacts
    b: ItemFacts
    score: float = Field(description="Cosine, from -1 to 1.")
    identical: bool = Field(description="The same file, or the same ready-made vector, was uploaded for both.")


class DuplicatesPage(Wire):
    """Pairs in the order in which the items were stored."""

    pairs: list[DuplicatePair]
    items: int = Field(description="Items that are compared with each other.")
    walked: int = Field(description="How many of them have been compared with all others by now.")
    next_cursor: str | None


class Left(Wire):
    """What is left of erased items on this server, looked for after the erasure: nothing, unless it says so."""

    store: int = Field(description="Rows of these items, and vectors and thumbnails without an item.")
    memory: int = Field(description="Items that a search could still find.")
    snapshot: int = Field(description="Vectors in the index snapshot on the disk.")
    log: bool = Field(description="Whether the database's log still has them, until a reader or the disk lets go.")
    jobs: int = Field(description="Jobs of the gallery under way, whose uploads may hold such items, or bring them.")


class Receipt(Wire):
    """What an erasure took away. It names no item: `ids_sha256` is that of their sorted ids, joined by newlines."""

    id: str
    gallery: str
    at: datetime
    items: int
    vectors: int
    thumbnails: int
    ids_sha256: str
    left: Left

    @classmethod
    def of(cls, erasure: Erasure) -> Self:
        """Translate."""
        return cls.model_validate({"id": erasure.id, "gallery": erasure.gallery, "at": erasure.at, **erasure.detail})


class ReceiptsPage(Wire):
    """Receipts, newest first."""

    receipts: list[Receipt]
    next_cursor: str | None


class Deleted(Wire):
    """How many items are gone, and the receipt."""

    deleted: int
    receipt: Receipt


# Search


class SearchFilter(Wire):
    """Which items may be found; left out or null: any. The fields hold together. What an item lacks excludes it not."""

    modality: Literal["visible", "infrared", "opposite"] | None = Field(
        None, description="`opposite` of the query's, so that night finds day and day finds night."
    )
    cameras: list[Label] | None = Field(None, max_length=1000)
    exclude_cameras: list[Label] | None = Field(None, max_length=1000)
    identities: list[Label] | None = Field(None, max_length=1000)
    exclude_identities: list[Label] | None = Field(None, max_length=1000)
    captured_from: Time | None = Field(None, description="Inclusive.")
    captured_to: Time | None = Field(None, description="Exclusive.")
    attributes: Attributes = Field(default={}, description="All of them, with these values.")
    exclude_attributes: Attributes = Field(default={}, description="None of them with this value.")
    warnings: list[CropWarning] | None = Field(None, max_length=len(CropWarning), description="At least one of them.")
    exclude_warnings: list[CropWarning] | None = Field(None, max_length=len(CropWarning), description="None of them.")

    def where(self, modality: Modality | None) -> Filter:
        """Translate; ``modality`` stands for this filter's own, once the query's is known."""
        return Filter(
            modality=modality,
            cameras=_set(self.cameras),
            exclude_cameras=_set(self.exclude_cameras),
            identities=_set(self.identities),
            exclude_identities=_set(self.exclude_identities),
            captured_from=self.captured_from,
            captured_to=self.captured_to,
            attributes=self.attributes,
            exclude_attributes=self.exclude_attributes,
            warnings=_set(self.warnings),
            exclude_warnings=_set(self.exclude_warnings),
        )


class RerankOptions(Wire):
    """k-reciprocal re-ranking (Zhong et al., CVPR 2017) of the best candidates, among which it is computed."""

    candidates: int = Field(100, ge=1, le=MAX_K, description="Nearest items that are re-ranked.")
    k1: int = Field(20, ge=1, le=MAX_K, description="Neighbours that are asked whether they are neighbours in turn.")
    k2: int = Field(6, ge=1, le=MAX_K, description="Neighbours whose encodings are averaged.")
    lambda_: float = Field(0.3, ge=0, le=1, description="Share of the original distance.")


def _options(choice: object) -> object:
    return {True: {}, False: None}[choice] if isinstance(choice, bool) else choice


class SearchQuery(Wire):
    """What to look for, and how."""

    k: int = Field(10, ge=1, le=MAX_K, description="Hits of the answer, which is one page of the ranking.")
    fusion: Fusion = Field(Fusion.MEAN, description="How several images of the person make one ranking.")
    group_by: Literal["identity"] | None = None
    rerank: Annotated[
        RerankOptions | None, BeforeValidator(_options, json_schema_input_type=bool | RerankOptions | None)
    ] = Field(None, description="Order the best candidates by their neighbours too; does not go with `group_by`.")
    cursor: str | None = Field(
        None,
        description="`next_cursor` of the page before, for the same search; does not go with `group_by` or `rerank`.",
    )
    min_score: float | None = Field(None, ge=-1, le=1)
    max_false_match_rate: float | None = Field(
        None, gt=0, le=1, description="Needs a filter on one modality and a model that is calibrated for the pair."
    )
    exact: bool = Field(
        False, description="Look at every item that passes, also where a server was told to approximate."
    )
    filter: SearchFilter = SearchFilter()

    @field_validator("rerank", "cursor")
    @classmethod
    def _goes_alone(cls, value: object, info: ValidationInfo) -> object:
        for other in ("group_by", "rerank"):
            if value is not None and info.data.get(other) is not None:
                raise ValueError(f"does not go with {other}")
        return value


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


class SearchBatch(Wire):
    """Searches of one gallery, each by an item or an embedding."""

    searches: list[Any] = Field(
        min_length=1,
        max_length=MAX_SEARCHES,
        json_schema_extra={"items": {"$ref": "#/components/schemas/SearchByStored"}},
    )


class SearchHit(Wire):
    """A hit."""

    rank: int = Field(description="Counted from 1, through all pages.")
    score: float = Field(description="Cosine, from -1 to 1.")
    false_match_rate: float | None
    rerank_distance: float | None = Field(description="From 0 to 1; null: not re-ranked.")
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
    """The ranking of the items that pass the filter; `exact` unless the server was told to approximate."""

    gallery: str
    model: str
    fingerprint: str
    modality: list[Modality] = Field(description="Of each query image, stated or decided.")
    warnings: list[list[CropWarning]] = Field(
        description="What may be wrong with each query image; empty where none was looked at, as for a further page."
    )
    searched: int = Field(description="Items that passed the filter.")
    exact: bool = Field(
        description="Every one of them was looked at: there is no better hit, or none behind the cursor."
    )
    recall: float | None = Field(
        description="Of the nearest items, the share that such a search finds, as measured with this gallery's own; "
        "null: it was exact."
    )
    reranked: bool
    hits: list[SearchHit]
    groups: list[SearchGroup] | None
    next_cursor: str | None = Field(description="For the next page; null: the last one, or no pages are to be had.")
    timing_ms: TimingMs


class SearchOutcome(Wire):
    """The answer to search `index`, or why there is none."""

    index: int
    answer: SearchAnswer | None = None
    error: Problem | None = None


class SearchAnswers(Wire):
    """What became of each search, in their order."""

    answers: list[SearchOutcome]


# Jobs


class JobSelection(Page):
    """A page of the jobs in one state, or in any."""

    state: JobState | None = None


class JobFacts(Wire):
    """A job. Of `total` entries, null as long as it is unknown, some are done, failed or skipped: there already."""

    id: str
    kind: str
    gallery: str | None
    state: JobState
    total: int | None
    done: int
    failed: int
    skipped: int
    rate: float | None = Field(description="Entries a second: of late while it runs, on the whole once it has ended.")
    eta_s: float | None = Field(description="Seconds until it is through, at that rate.")
    error: str | None = Field(description="Why it failed.")
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class JobsPage(Wire):
    """Jobs, newest first."""

    jobs: list[JobFacts]
    next_cursor: str | None


class JobFailure(Wire):
    """An entry that failed: the path of a file, or the place of a line or row."""

    name: str
    error: Problem


class JobFailuresPage(Wire):
    """Failures, oldest first."""

    failures: list[JobFailure]
    next_cursor: str | None


class ImportOptions(Wire):
    """What holds for a whole import."""

    modality: ModalityChoice = Field(ModalityChoice.AUTO, description="Of images, where nothing else says it.")
    pattern: str | None = Field(
        None,
        max_length=1024,
        description="RE2 expression, searched for in each image's path; its groups `id`, `identity`, `modality`, "
        "`camera` and `captured_at` are what is known of it. An image whose path it does not match fails.",
        examples=[r"(?P<identity>\d{4})_(?P<camera>c\d)"],
    )
    fingerprint: str | None = Field(None, description="Of the model that made the vectors; checked when given.")


class OtherModel(Wire):
    """The model that a gallery is to be bound to."""

    model: str = Field(description="Name of a loaded model.")


class NoParameters(Wire):
    """A job that needs to know nothing but its gallery."""


class ImportDirectory(Wire):
    """A folder of the server's machine."""

    directory: str = Field(
        min_length=1, max_length=4096, description="Absolute, below one of the server's import roots."
    )
    pattern: str | None = Field(None, max_length=1024, description="As the query parameter; counts before it.")


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


def _set(values: list[Value] | None) -> frozenset[Value] | None:
    return None if values is None else frozenset(values)
