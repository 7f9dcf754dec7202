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
    "Comparison",
    "Deleted",
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
    "Key",
    "KeysPage",
    "Limits",
    "ModalityChoice",
    "ModelReadiness",
    "Models",
    "Page",
    "Problem",
    "Readiness",
    "Scalar",
    "Scope",
    "SearchAnswer",
    "Timing",
    "Written",
    "WrittenItems",
]

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


class Filter(_Sent):
    """Which items a search may find; ``opposite`` is the modality that the query is not of."""

    modality: Modality | Literal["visible", "infrared", "opposite"] | None = None
    cameras: tuple[str, ...] | None = None
    exclude_cameras: tuple[str, ...] | None = None
    identities: tuple[str, ...] | None = None
    captured_from: AwareDatetime | None = None
    """Inclusive."""
    captured_to: AwareDatetime | None = None
    """Exclusive."""
    attributes: dict[str, Scalar] = {}


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


class Readiness(_Answer):
    """The state of the server. ``galleries`` is None where their names need a key."""

    ready: bool
    reasons: tuple[str, ...]
    models: tuple[ModelReadiness, ...]
    galleries: dict[str, GalleryReadiness] | None
    queue_depth: int
    version: str


class Limits(_Answer):
    """Every limit a client must respect."""

    max_images: int
    max_query_images: int
    max_image_bytes: int
    max_body_bytes: int
    max_pixels: int
    max_in_flight: int
    max_k: int
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


class ItemsPage(Page):
    """Items by id."""

    items: tuple[Item, ...]


class Written(_Answer):
    """What became of one item: ``index`` is its place among those given."""

    index: int
    id: str | None
    status: Literal["added", "updated", "failed"]
    modality: Modality | None = None
    error: Problem | None = None


class WrittenItems(_Answer):
    """What became of each item of a request."""

    items: tuple[Written, ...]


class Deleted(_Answer):
    """How many items are gone."""

    deleted: int


class Hit(_Answer):
    """An item, its cosine with the query, and the share of strangers that score as high (None: not calibrated)."""

    rank: int
    score: float
    false_match_rate: float | None
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
    """The exact ranking. ``modality`` is that of each query image; ``searched`` counts what passed the filter."""

    gallery: str
    model: str
    fingerprint: str
    modality: tuple[Modality, ...]
    searched: int
    hits: tuple[Hit, ...]
    groups: tuple[Group, ...] | None
    timing_ms: Timing


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
