"""What galleries hold and what a search asks and answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from models.card import Modality

__all__ = [
    "Filter",
    "Fusion",
    "Gallery",
    "Group",
    "Hit",
    "Item",
    "NewItem",
    "Scalar",
    "SearchResult",
    "Vectors",
    "WriteStatus",
]

Vectors = NDArray[np.float32]
Scalar = str | int | float | bool
WriteStatus = Literal["added", "updated"]


class Fusion(StrEnum):
    """How several images of one person make one ranking."""

    MEAN = "mean"
    """One query: the mean of the unit vectors, made unit length again."""
    MAX = "max"
    """The best score of any query image."""


@dataclass(frozen=True, slots=True)
class Gallery:
    """A named set of items, bound to one model fingerprint."""

    name: str
    model: str
    fingerprint: str
    dimension: int
    created_at: datetime
    items: int
    description: str | None = None
    retention_days: int | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """One crop's facts. ``id`` is unique in its gallery; times are aware and in UTC."""

    id: str
    modality: Modality
    identity: str | None = None
    camera: str | None = None
    captured_at: datetime | None = None
    attributes: Mapping[str, Scalar] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NewItem:
    """An item with what only a write carries: its unit vector, float32 ``[dimension]``, a thumbnail (WebP), a time.

    Retention counts from ``stored_at``; an item that is replaced begins anew.
    """

    item: Item
    vector: Vectors
    thumbnail: bytes | None = None
    stored_at: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass(frozen=True, slots=True)
class Filter:
    """Which items count; None or empty means no restriction, several conditions hold together.

    ``captured_from`` is inclusive, ``captured_to`` exclusive; an item without a time fails either. An item without a
    camera passes ``exclude_cameras``. ``attributes`` must all be equal (a missing one is not).
    """

    modality: Modality | None = None
    cameras: frozenset[str] | None = None
    exclude_cameras: frozenset[str] | None = None
    identities: frozenset[str] | None = None
    captured_from: datetime | None = None
    captured_to: datetime | None = None
    attributes: Mapping[str, Scalar] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Hit:
    """An item and its cosine with the query, in [-1, 1]."""

    item: Item
    score: float


@dataclass(frozen=True, slots=True)
class Group:
    """Hits of one identity, best first; ``score`` is the best one's. Items without identity stand alone."""

    identity: str | None
    score: float
    hits: tuple[Hit, ...]


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Hits in falling score, ties by item id. ``searched`` counts the items that passed the filter."""

    searched: int
    hits: tuple[Hit, ...]
    groups: tuple[Group, ...] | None = None
