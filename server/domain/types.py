"""Galleries, items, filters, searches and their results."""

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
    "RankingPosition",
    "Reembedding",
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
    """How a gallery stores its vectors. float16 rounds once, and scores are those of the rounded vectors."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"

    @property
    def dtype(self) -> np.dtype[np.float16 | np.float32]:
        """The NumPy type, little-endian as on disk."""
        return np.dtype("<f2") if self is VectorType.FLOAT16 else np.dtype("<f4")


class CropWarning(StrEnum):
    """A possible defect of an accepted crop."""

    TOO_SMALL = "too_small"
    TOO_DARK = "too_dark"
    BLURRED = "blurred"
    NOT_PERSON_SHAPED = "not_person_shaped"

    @property
    def bit(self) -> int:
        """The bit of this warning in a bit mask. Databases store it, so it never changes."""
        return 1 << _PLACES.index(self)

    @staticmethod
    def to_bits(warnings: Iterable[CropWarning]) -> int:
        """Encode warnings as a bit mask."""
        return sum({warning.bit for warning in warnings})

    @staticmethod
    @cache
    def from_bits(bits: int) -> frozenset[CropWarning]:
        """Decode a bit mask of ``to_bits``."""
        return frozenset(warning for warning in CropWarning if bits & warning.bit)


_PLACES = (CropWarning.TOO_SMALL, CropWarning.TOO_DARK, CropWarning.BLURRED, CropWarning.NOT_PERSON_SHAPED)


class Fusion(StrEnum):
    """How several images of one person are combined into one ranking."""

    MEAN = "mean"
    """One query: the mean of the unit vectors, normalised again."""
    MAX = "max"
    """The best score over the query images."""


@dataclass(frozen=True, slots=True)
class Gallery:
    """A named set of items, bound to one model fingerprint. Without ``thumbnails`` it never stores any."""

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
class Reembedding:
    """A re-embedding in progress: the id of its job, and the model whose vectors collect beside the gallery's own."""

    id: str
    model: str
    fingerprint: str
    dimension: int


@dataclass(frozen=True, slots=True)
class Item:
    """The metadata of one crop. ``id`` is unique in its gallery; times are aware and in UTC.

    ``content`` is the SHA-256 (hex) of the upload: of the file, or of an uploaded vector's little-endian float32
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
    """An item to write, with its unit vector, float32 ``[dimension]``, thumbnail (JPEG) and time of storage.

    Retention counts from ``stored_at``; replacing an item restarts it.
    """

    item: Item
    vector: Vectors
    thumbnail: bytes | None = None
    stored_at: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass(frozen=True, slots=True)
class Filter:
    """Conditions on items, all of which must hold; None or empty means no restriction.

    ``captured_from`` is inclusive, ``captured_to`` exclusive; an item without a time passes neither. All ``attributes``
    must be present and equal, and none of ``exclude_attributes``. An item must have at least one of ``warnings`` and
    none of ``exclude_warnings``. An item without a value passes its exclusion: without a camera it passes
    ``exclude_cameras``.
    """

    modality: Modality | None = None
    ids: frozenset[str] | None = None
    exclude_ids: frozenset[str] | None = None
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
    """k-reciprocal re-ranking of the ``candidates`` nearest items, with the parameters of Zhong et al., CVPR 2017.

    ``k1``: neighbours that are tested for reciprocity. ``k2``: neighbours whose encodings are averaged, including the
    item itself. ``lambda_``: weight of the original distance.
    """

    candidates: int = 100
    k1: int = 20
    k2: int = 6
    lambda_: float = 0.3


@dataclass(frozen=True, slots=True)
class RankingPosition:
    """The end of a page of a ranking: score, item id and rank, counted from 1, of its last hit."""

    score: float
    id: str
    rank: int


@dataclass(frozen=True, slots=True)
class Search:
    """Look for the ``k`` items nearest to one person, seen in the unit vectors ``queries`` ``[q, dimension]``, q ≥ 1.

    An item's score is its best over ``queries``; ``server.index.ranking.fuse`` makes one query of several images.
    ``exclude`` is the id of an item to ignore. ``group`` adds the ``k`` best identities, each with all its items that
    pass. ``after`` continues the same ranking behind that position. ``exact`` scans every item also in a large gallery;
    searches with ``group`` or ``after`` always do.

    Raises:
        ValueError: k < 1, no query, or two of ``group``, ``after`` and ``rerank``.
    """

    queries: Vectors
    k: int = 10
    where: Filter = field(default_factory=Filter)
    group: bool = False
    min_score: float | None = None
    exclude: str | None = None
    after: RankingPosition | None = None
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
    """An item and its cosine with the query, in [-1, 1]; after re-ranking also its new distance, in [0, 1]."""

    item: Item
    score: float
    rerank_distance: float | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """Hits of one identity, best first; ``score`` is the best one. An item without identity is its own group."""

    identity: str | None
    score: float
    hits: tuple[Hit, ...]


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Hits in falling score, ties by item id. ``searched`` counts the items that passed the filter.

    Re-ranked hits come first, by increasing distance. ``end`` is the position to continue from; None after the last
    hit, and for grouped or re-ranked hits.

    ``recall`` is None if every item that passed was scanned. Otherwise it is the average share of the nearest items
    that were scanned, as measured with items of this gallery.
    """

    searched: int
    hits: tuple[Hit, ...]
    groups: tuple[Group, ...] | None = None
    end: RankingPosition | None = None
    recall: float | None = None


@dataclass(frozen=True, slots=True)
class Erasure:
    """The receipt of an erasure. ``gallery`` may have been deleted since; ``detail`` is JSON and names no person."""

    id: str
    gallery: str
    at: datetime
    key_id: str | None
    detail: Mapping[str, object]
