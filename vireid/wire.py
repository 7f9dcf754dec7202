"""What goes to the server and what comes back, typed. Unknown fields of an answer are passed over: servers may grow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from enum import StrEnum
from typing import Literal, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict

from models.card import Card, Modality

__all__ = [
    "AddedKey",
    "Alias",
    "AliasesList",
    "Comparison",
    "CropWarning",
    "Deleted",
    "Duplicate",
    "DuplicatesPage",
    "FieldError",
    "Filter",
    "GalleriesPage",
    "Gallery",
    "GalleryReadiness",
    "Group",
    "Hit",
    "Item",
    "ItemFields",
    "ItemFilter",
    "ItemsPage",
    "Job",
    "JobFailure",
    "JobFailuresPage",
    "JobState",
    "JobsPage",
    "Key",
    "KeysPage",
    "Left",
    "Limits",
    "ModalityChoice",
    "ModelReadiness",
    "Models",
    "Page",
    "Problem",
    "Readiness",
    "Receipt",
    "ReceiptsPage",
    "Rerank",
    "Scalar",
    "Scope",
    "SearchAnswer",
    "SearchAnswers",
    "SearchOutcome",
    "Timing",
    "VectorType",
    "Written",
    "WrittenItems",
]

VectorType = Literal["float32", "float16"]
Scalar = str | int | float | bool
ModalityChoice = Modality | Literal["visible", "infrared", "auto"]
"""``auto`` lets the server decide from the pixels."""

Entry = TypeVar("Entry")

_PART_OVERHEAD = 512  # boundary and headers of an image's part, with room to spare


class _Sent(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Scope(StrEnum):
    """What an API key opens; ``admin`` opens everything."""

    SEARCH = "search"
    WRITE = "write"
    ADMIN = "admin"


class CropWarning(StrEnum):
    """What may be wrong with a crop that was taken all the same."""

    TOO_SMALL = "too_small"
    TOO_DARK = "too_dark"
    BLURRED = "blurred"
    NOT_PERSON_SHAPED = "not_person_shaped"


class Page(_Answer):
    """A part of a list; ``next_cursor`` asks for the part after it and is None at the end."""

    next_cursor: str | None


class ItemFields(_Sent):
    """What is told of a crop that is added. The same ``id`` again replaces; without one the server makes it."""

    id: str | None = None
    identity: str | None = None
    modality: ModalityChoice = "auto"
    camera: str | None = None
    captured_at: AwareDatetime | None = None
    attributes: dict[str, Scalar] = {}


class ItemFilter(_Sent):
    """Which items to list or delete: values of one field are alternatives, the fields hold together."""

    identity: tuple[str, ...] = ()
    camera: tuple[str, ...] = ()
    modality: Modality | None = None
    captured_from: AwareDatetime | None = None
    """Inclusive."""
    captured_to: AwareDatetime | None = None
    """Exclusive."""
    warning: tuple[CropWarning, ...] = ()


class Filter(_Sent):
    """Which items a search may find; ``opposite`` is the modality that the query is not of.

    What an item lacks excludes it from nothing: without an identity it passes ``exclude_identities``, and so on.
    """

    modality: Modality | Literal["visible", "infrared", "opposite"] | None = None
    cameras: tuple[str, ...] | None = None
    exclude_cameras: tuple[str, ...] | None = None
    identities: tuple[str, ...] | None = None
    exclude_identities: tuple[str, ...] | None = None
    captured_from: AwareDatetime | None = None
    """Inclusive."""
    captured_to: AwareDatetime | None = None
    """Exclusive."""
    attributes: dict[str, Scalar] = {}
    """All of them, with these values."""
    exclude_attributes: dict[str, Scalar] = {}
    """None of them with this value."""
    warnings: tuple[CropWarning, ...] | None = None
    """At least one of them."""
    exclude_warnings: tuple[CropWarning, ...] | None = None
    """None of them."""


class Rerank(_Sent):
    """k-reciprocal re-ranking of the ``candidates`` nearest items (Zhong et al., CVPR 2017).

    ``k1``: neighbours that are asked whether they are neighbours in turn. ``k2``: neighbours whose encodings are
    averaged. ``lambda_``: share of the original distance.
    """

    candidates: int = 100
    k1: int = 20
    k2: int = 6
    lambda_: float = 0.3


class FieldError(_Answer):
    """One offending field or file."""

    field: str
    detail: str


class Problem(_Answer):
    """An error as the server tells it (RFC 9457)."""

    status: int
    title: str
    type: str = "about:blank"
    detail: str | None = None
    errors: tuple[FieldError, ...] = ()
    request_id: str | None = None

    @property
    def reason(self) -> str:
        """The detail, or the title where there is none."""
        return self.detail or self.title


class ModelReadiness(_Answer):
    """A model and the execution provider that really runs it."""

    name: str
    fingerprint: str
    provider: str
    precision: str


class GalleryReadiness(_Answer):
    """Sequence numbers of the last change; equal when searches see all that is stored."""

    store_sequence: int
    index_sequence: int
    index: str = "exact"
    recall: float | None = None
    """Of the ten nearest items, the share that searches find; None: all, they are exact."""


class LoadProgress(_Answer):
    """Items of a gallery that the server has loaded, and how many it has."""

    done: int
    total: int


class Readiness(_Answer):
    """The state of the server. ``galleries`` and ``load`` are None where names need a key.

    ``load`` has the galleries that are still being loaded.
    """

    ready: bool
    reasons: tuple[str, ...]
    models: tuple[ModelReadiness, ...]
    galleries: dict[str, GalleryReadiness] | None
    load: dict[str, LoadProgress] | None
    recall: float | None = None
    """The least of the galleries that are searched approximately; None: all are exact."""
    queue_depth: int
    version: str


class Limits(_Answer):
    """Every limit a client must respect."""

    max_images: int
    max_query_images: int
    max_image_bytes: int
    max_body_bytes: int
    max_import_bytes: int
    max_pixels: int
    max_in_flight: int
    max_k: int
    max_searches: int
    max_page: int
    formats: tuple[str, ...]

    def batches(self, entries: Iterable[Entry], size: Callable[[Entry], int], at_most: int) -> Iterator[list[Entry]]:
        """Cut ``entries`` into requests, in order, of ``at_most`` entries each; ``size`` gives the bytes of one.

        An entry too large for any request stands alone, for the server to refuse.
        """
        batch: list[Entry] = []
        total = 0
        for entry in entries:
            needed = size(entry) + _PART_OVERHEAD
            if batch and (len(batch) == at_most or total + needed > self.max_body_bytes):
                yield batch
                batch, total = [], 0
            batch.append(entry)
            total += needed
        if batch:
            yield batch


class Models(_Answer):
    """The loaded models' cards and the default one's name."""

    models: tuple[Card, ...]
    default: str


class Comparison(_Answer):
    """How alike two crops are: cosine, and what it means where the model is calibrated for the pair."""

    model: str
    fingerprint: str
    modality: tuple[Modality, ...]
    score: float
    false_match_rate: float | None
    same_at: dict[str, bool | None] | None


class Gallery(_Answer):
    """A named set of items, bound to one model."""

    name: str
    model: str
    fingerprint: str
    dimension: int
    items: int
    created_at: datetime
    retention_days: int | None = None
    description: str | None = None
    vector_type: VectorType = "float32"
    thumbnails: bool = True


class Alias(_Answer):
    """Another name for a gallery."""

    alias: str
    gallery: str


class AliasesList(_Answer):
    """Aliases by name."""

    aliases: tuple[Alias, ...]


class GalleriesPage(Page):
    """Galleries by name."""

    galleries: tuple[Gallery, ...]


class Item(_Answer):
    """What is known of a crop."""

    id: str
    modality: Modality
    identity: str | None = None
    camera: str | None = None
    captured_at: datetime | None = None
    attributes: dict[str, Scalar] = {}
    warnings: tuple[CropWarning, ...] = ()
    content_sha256: str | None = None
    """Of the uploaded file or vector; None in hits and duplicates, which do not tell it."""


class ItemsPage(Page):
    """Items by id."""

    items: tuple[Item, ...]


class Written(_Answer):
    """What became of one item: ``index`` is its place among those given."""

    index: int
    id: str | None
    status: Literal["added", "updated", "failed"]
    modality: Modality | None = None
    warnings: tuple[CropWarning, ...] = ()
    error: Problem | None = None


class WrittenItems(_Answer):
    """What became of each item of a request."""

    items: tuple[Written, ...]


class Duplicate(_Answer):
    """Two items that are nearly the same, ``a`` stored first; ``identical`` if the same file was uploaded for both."""

    a: Item
    b: Item
    score: float
    identical: bool


class DuplicatesPage(Page):
    """Pairs in the order of storing; ``walked`` of the ``items`` have been compared with all others by now."""

    pairs: tuple[Duplicate, ...]
    items: int
    walked: int


class Left(_Answer):
    """What was found of erased items after the erasure: nothing, unless it says so."""

    store: int
    memory: int
    snapshot: int
    log: bool
    jobs: int


class Receipt(_Answer):
    """What an erasure took away. ``ids_sha256`` is that of the sorted ids of the items, joined by newlines."""

    id: str
    gallery: str
    at: datetime
    items: int
    vectors: int
    thumbnails: int
    ids_sha256: str
    left: Left

    @property
    def complete(self) -> bool:
        """Whether nothing was left."""
        return not any(self.left.model_dump().values())


class ReceiptsPage(Page):
    """Receipts, newest first."""

    receipts: tuple[Receipt, ...]


class Deleted(_Answer):
    """How many items are gone, and the receipt."""

    deleted: int
    receipt: Receipt


class Hit(_Answer):
    """An item, its cosine with the query, and the share of strangers that score as high (None: not calibrated).

    ``rank`` counts from 1 through all pages; ``rerank_distance`` is that of a re-ranked hit, from 0 to 1.
    """

    rank: int
    score: float
    false_match_rate: float | None
    rerank_distance: float | None = None
    item: Item


class Group(_Answer):
    """Hits of one identity, best first."""

    identity: str | None
    score: float
    hits: tuple[Hit, ...]


class Timing(_Answer):
    """Milliseconds by stage."""

    queue: float
    decode: float
    embed: float
    search: float
    total: float


class SearchAnswer(_Answer):
    """The ranking. ``modality`` is that of each query image; ``searched`` counts what passed the filter.

    ``recall`` is None where the ranking is ``exact``, else the share of the nearest items that such a search finds.
    ``next_cursor`` asks for the next page of the same search; None where no hit is left, or no pages are to be had.
    """

    gallery: str
    model: str
    fingerprint: str
    modality: tuple[Modality, ...]
    warnings: tuple[tuple[CropWarning, ...], ...] = ()
    searched: int
    exact: bool = True
    recall: float | None = None
    reranked: bool = False
    hits: tuple[Hit, ...]
    groups: tuple[Group, ...] | None
    next_cursor: str | None = None
    timing_ms: Timing


class SearchOutcome(_Answer):
    """The answer to one of many searches, or why there is none; ``index`` is its place among those given."""

    index: int
    answer: SearchAnswer | None = None
    error: Problem | None = None


class SearchAnswers(_Answer):
    """What became of each search of a request."""

    answers: tuple[SearchOutcome, ...]


class JobState(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether it stays so."""
        return self not in (JobState.QUEUED, JobState.RUNNING)


class Job(_Answer):
    """Long work of the server. Of ``total`` entries (None: unknown) some are done, failed or skipped: there already.

    ``rate`` is in entries a second, ``eta_s`` the seconds that are left at that rate; ``error`` says why it failed.
    """

    id: str
    kind: str
    gallery: str | None
    state: JobState
    total: int | None
    done: int
    failed: int
    skipped: int
    rate: float | None
    eta_s: float | None
    error: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @property
    def processed(self) -> int:
        """Entries that are through, one way or another."""
        return self.done + self.failed + self.skipped


class JobsPage(Page):
    """Jobs, newest first."""

    jobs: tuple[Job, ...]


class JobFailure(_Answer):
    """An entry of a job that failed: the path of a file, or the place of a line or row."""

    name: str
    error: Problem


class JobFailuresPage(Page):
    """Failures, oldest first."""

    failures: tuple[JobFailure, ...]


class Key(_Answer):
    """An API key without its secret; ``galleries`` None: all."""

    id: str
    name: str
    scopes: tuple[Scope, ...]
    galleries: tuple[str, ...] | None
    created_at: datetime


class AddedKey(Key):
    """A new key with its secret, which the server never shows again."""

    secret: str


class KeysPage(Page):
    """Keys."""

    keys: tuple[Key, ...]
