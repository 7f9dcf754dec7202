"""Items of a gallery."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import Field, Json

from models.card import Modality
from vireid.schemas.base import Schema
from vireid.schemas.fields import Attributes, CropWarning, Id, Label, ModalityChoice, Scalar, Time, UnitVector, Upload
from vireid.schemas.filters import FilterParameters
from vireid.schemas.paging import PageQuery
from vireid.schemas.problems import Problem

__all__ = [
    "ItemChanges",
    "ItemDetails",
    "ItemFields",
    "ItemSelection",
    "ItemSummary",
    "ItemsForm",
    "ItemsPage",
    "NewItemFields",
    "VectorFields",
    "VectorItems",
    "VectorOrigin",
    "WriteResult",
    "WriteResults",
    "WriteStatus",
]

WriteStatus = Literal["added", "updated"]


class NewItemFields(Schema):
    """Metadata of an item to add. An item with the same id is replaced."""

    id: Id | None = Field(None, description="Generated when omitted.")
    identity: Label | None = None
    camera: Label | None = None
    captured_at: Time | None = None
    attributes: Attributes = Field(default={})


class ItemFields(NewItemFields):
    """Metadata of an item to add by its image."""

    modality: ModalityChoice


class VectorFields(NewItemFields):
    """An item to add by a precomputed embedding."""

    modality: Modality
    vector: UnitVector


class ItemsForm(Schema):
    """Images and, in the same order, their metadata."""

    images: list[Upload] = Field(min_length=1)
    items: Json[list[Any]] = Field(
        description="JSON array with one object per image.",
        json_schema_extra={
            "contentMediaType": "application/json",
            "contentSchema": {"type": "array", "items": {"$ref": "#/components/schemas/ItemFields"}},
        },
    )


class VectorItems(Schema):
    """Items to add by precomputed embeddings."""

    items: list[Any] = Field(
        min_length=1,
        json_schema_extra={"items": {"$ref": "#/components/schemas/VectorFields"}},
    )


class VectorOrigin(Schema):
    """Origin of precomputed embeddings."""

    fingerprint: str | None = Field(
        None,
        description="Fingerprint of the model that made the embeddings; if given, it must be the gallery's.",
    )


class WriteResult(Schema):
    """Result of writing item `index` of the request."""

    index: int
    id: str | None
    status: WriteStatus | Literal["failed"]
    modality: Modality | None = None
    warnings: tuple[CropWarning, ...] = Field(
        default=(), description="Possible quality problems of the crop; it was stored."
    )
    error: Problem | None = None


class WriteResults(Schema):
    """Result of each item of the request."""

    added: int
    updated: int
    failed: int
    items: tuple[WriteResult, ...]


class ItemSummary(Schema):
    """Metadata of an item."""

    id: str
    identity: str | None
    modality: Modality
    camera: str | None
    captured_at: datetime | None
    attributes: dict[str, Scalar]
    warnings: tuple[CropWarning, ...]


class ItemDetails(ItemSummary):
    """Metadata of an item, with the checksum of its content."""

    content_sha256: str | None = Field(
        description="SHA-256 of the uploaded file, or of a precomputed embedding as little-endian float32; null: "
        "unknown.",
    )


class ItemChanges(Schema):
    """Changes to an item: an omitted field keeps its value, null clears it."""

    identity: Label | None = None
    camera: Label | None = None
    captured_at: Time | None = None
    attributes: Attributes = Field(default={})


class ItemSelection(FilterParameters, PageQuery):
    """A page of the items that pass a filter."""

    count: bool = Field(False, description="Count all items that pass, as `total`.")


class ItemsPage(Schema):
    """Items in the order of their ids."""

    items: tuple[ItemDetails, ...]
    next_cursor: str | None
    total: int | None = Field(None, description="Number of items that pass the filter; null: `count` was not set.")
