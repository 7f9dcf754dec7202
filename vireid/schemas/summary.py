"""Summary of a gallery."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from models.card import Modality
from vireid.schemas.base import Schema

__all__ = ["GallerySummary"]


class GallerySummary(Schema):
    """Counts of the items that pass a filter."""

    items: int
    modalities: dict[Modality, int]
    cameras: dict[str, int] = Field(description="Items by camera: the 1000 most frequent cameras, in order of name.")
    identities: int = Field(description="Number of different identities.")
    unlabelled: int = Field(description="Number of items without an identity.")
    captured_first: datetime | None = Field(description="Earliest capture time; null: no item has one.")
    captured_last: datetime | None = Field(description="Latest capture time.")
