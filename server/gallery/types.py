"""What galleries hold and what a search asks and answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from models.card import Modality

__all__ = [
    "CropWarning",
    "Erasure",
    "Filter",
    "Fusion",
    "Gallery",
    "Group",
    "Hit",
    "Item",
    "NewItem",
    "Place",
    "Renewal",
    "Rerank",
    "Scalar",
    "Search",
    "SearchResult",
    "StoredVectors",
    "VectorType",
    "Vectors",
    "WriteStatus",
]

Vectors = NDArray[np.float32]
StoredVectors = NDArray[np.float16 | np.float32]
Scalar = str | int | float | bool
WriteStatus = Literal["added", "updated"]


class VectorType(StrEnum):
    """How a gallery stores its vectors. What is stored is the truth: float16 rounds once, scores use the rounded."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"

    @property
    def dtype(self) -> np.dtype[np.float16 | np.float32]:
        """The NumPy type, little-endian as on the disk."""
        return np.dtype("<f2") if self is VectorType.FLOAT16 else np.dtype("<f4")


class CropWarning(StrEnum):
    """What may be wrong with a crop that was taken all the same."""

    TOO_SMALL = "too_small"
    TOO_DARK = "too_dark"
    BLURRED = "blurred"
    NOT_PERSON_SHAPED = "not_person_shaped"

    @property
    def bit(self) -> int:
        """The bit that stands for it wherever warnings are one number; databases hold it, so it never changes."""
        return 1 << _PLACES.index(self)

    @staticmethod
    def to_bits(warnings: Iterable[CropWarning]) -> int:
        """Warnings as one number."""
        return sum({warning.bit for warning in warnings})

    @staticmethod
    @cache
    def from_bits(bits: int) -> frozenset[CropWarning]:
        """The inverse of ``to_bits``."""
        return frozenset(warning for warning in CropWarning if bits & warning.bit)


_PLACES = (CropWarning.TOO_SMALL, CropWarning.TOO_DARK, CropWarning.BLURRED, CropWarning.NOT_PERSON_SHAPED)


class Fusion(StrEnum):
    """How several images of one person make one ranking."""

    MEAN = "mean"
    """One query: the mean of the unit vectors, made unit length again."""
    MAX = "max"
    """The best score of any query image."""


@dataclass(frozen=True, slots=True)
class Gallery:
    """A named set of items, bound to one model fingerprint. Without ``thumbnails`` none is ever stored."""

    name: str
    model: str
    fingerprint: str
    dimension: int
    created_at: datetime
    items: int
    description: str | None = None
    retention_days: int | None = None
    vector_type: VectorType = VectorType.FLOAT32
    thumbnails: bool = True


@dataclass(frozen=True, slots=True)
class Renewal:
    """Vectors of another model that come together beside a gallery's own: for which job, and of which model."""

    id: str
    model: str
    fingerprint: str
    dimension: int


@dataclass(frozen=True, slots=True)
class Item:
    """One crop's facts. ``id`` is unique in its gallery; times are aware and in UTC.

    ``content`` is the SHA-256 (hex) of what was uploaded: the file, or a ready-made vector's little-endian float32
    bytes. It and ``warnings`` change only when the item is replaced.
    """

    id: str
    modality: Modality
    identity: str | None = None
    camera: str | None = None
    captured_at: datetime | None = None
    attributes: Mapping[str, Scalar] = field(default_factory=dict)
    warnings: frozenset[CropWarning] = frozenset()
    content: str | None = None


@dataclass(frozen=True, slots=True)
class NewItem:
    """An item with what only a write carries: its unit vector, float32 ``[dimension]``, a thumbnail (JPEG), a time.

    Retention counts from ``stored_at``; an item that is replaced begins anew.
    """

    item: Item
    vector: Vectors
    thumbnail: bytes | None = None
    stored_at: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass(frozen=True, slots=True)
class Filter:
    """Which items count; None or empty means no restriction, several conditions hold together.

    ``captured_from`` is inclusive, ``captured_to`` exclusive; an item without a time fails either. ``attributes`` must
    all be equal (a missing one is not); an item that has any of ``exclude_attributes`` with that value fails. An item
    has at least one of ``warnings`` and none of ``exclude_warnings``. What an item lacks excludes it from nothing:
    without a camera it passes ``exclude_cameras``, and so on.
    """

    modality: Modality | None = None
    cameras: frozenset[str] | None = None
    exclude_cameras: frozenset[str] | None = None
    identities: frozenset[str] | None = None
    exclude_identities: frozenset[str] | None = None
    captured_from: datetime | None = None
    captured_to: datetime | None = None
    attributes: Mapping[str, Scalar] = field(default_factory=dict)
    exclude_attributes: Mapping[str, Scalar] = field(default_factory=dict)
    warnings: frozenset[CropWarning] | None = None
    exclude_warnings: frozenset[CropWarning] | None = None


@dataclass(frozen=True, slots=True)
class Rerank:
    """k-reciprocal re-ranking of the ``candidates`` nearest items; the other numbers as in Zhong et al., CVPR 2017.

    ``k1``: neighbours that are asked whether they are neighbours in turn. ``k2``: neighbours whose encodings are
    averaged, the item itself among them. ``lambda_``: share of the original distance.
    """

    candidates: int = 100
    k1: int = 20
    k2: int = 6
    lambda_: float = 0.3


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page of a ranking ends: score, item id and rank, counted from 1, of its last hit."""

    score: float
    id: str
    rank: int


@dataclass(frozen=True, slots=True)
class Search:
    """Look for the ``k`` items nearest to one person, seen in the unit vectors ``queries`` ``[q, dimension]``, q ≥ 1.

    ``exclude`` is the id of an item that does not count. ``group`` adds the ``k`` best identities, each with all its
    items that pass. ``after`` asks for the hits behind that place of the same ranking.
    ``exact`` asks for every item to be looked at also where the gallery is large; both of these are exact anyway.

    Raises:
        ValueError: k < 1, no query, or two of ``group``, ``after`` and ``rerank``.
    """

    queries: Vectors
    k: int = 10
    where: Filter = field(default_factory=Filter)
    fusion: Fusion = Fusion.MEAN
    group: bool = False
    min_score: float | None = None
    exclude: str | None = None
    after: Place | None = None
    rerank: Rerank | None = None
    exact: bool = False

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"expected k ≥ 1, found {self.k}")
        if not len(self.queries):
            raise ValueError("expected at least one query vector, found none")
        if self.group + (self.after is not None) + (self.rerank is not None) > 1:
            raise ValueError("expected at most one of group, after and rerank")


@dataclass(frozen=True, slots=True)
class Hit:
    """An item and its cosine with the query, in [-1, 1]; where it was re-ranked, its distance by that, in [0, 1]."""

    item: Item
    score: float
    rerank_distance: float | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """Hits of one identity, best first; ``score`` is the best one's. Items without identity stand alone."""

    identity: str | None
    score: float
    hits: tuple[Hit, ...]


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Hits in falling score, ties by item id. ``searched`` counts the items that passed the filter.

    Re-ranked hits come first, in rising distance. ``end`` is the place to go on from; None where no hit is left, and
    where hits are grouped or re-ranked.

    ``recall`` is None where every item that passed was looked at. Else it is the share of the nearest ones that were,
    on average, as measured with items of this gallery.
    """

    searched: int
    hits: tuple[Hit, ...]
    groups: tuple[Group, ...] | None = None
    end: Place | None = None
    recall: float | None = None


@dataclass(frozen=True, slots=True)
class Erasure:
    """The receipt of an erasure. ``gallery`` may be gone since; ``detail`` is JSON and names no person."""

    id: str
    gallery: str
    at: datetime
    key_id: str | None
    detail: Mapping[str, object]
