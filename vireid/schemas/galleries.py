"""Galleries."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from pydantic import Field

from vireid.schemas.base import Schema
from vireid.schemas.fields import Id

__all__ = ["GalleriesPage", "GalleryChanges", "GalleryDetails", "NewGallery", "VectorType"]


class VectorType(StrEnum):
    """Number format of stored embeddings. float16 rounds each embedding once; scores use the rounded values."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"


class NewGallery(Schema):
    """A gallery to create."""

    name: Id
    model: str | None = Field(None, description="Name of the model to bind it to; null: the default model.")
    retention_days: int | None = Field(None, ge=1, le=36500)
    description: str | None = Field(None, max_length=1024)
    vector_type: VectorType = Field(
        VectorType.FLOAT32, description="Number format of stored embeddings: float16 needs half the memory."
    )
    thumbnails: bool = Field(
        True, description="Store a thumbnail of each crop; required to re-embed the gallery with another model."
    )


class GalleryChanges(Schema):
    """Changes to a gallery: an omitted field keeps its value, null clears it."""

    retention_days: int | None = Field(None, ge=1, le=36500)
    description: str | None = Field(None, max_length=1024)


class GalleryDetails(Schema):
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


class GalleriesPage(Schema):
    """Galleries in the order of their names."""

    galleries: tuple[GalleryDetails, ...]
    next_cursor: str | None
