"""Readiness of the server."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from vireid.schemas.base import Schema

__all__ = ["GalleryReadiness", "LoadProgress", "ModelReadiness", "Readiness"]


class ModelReadiness(Schema):
    """A loaded model and the execution provider that runs it."""

    name: str
    fingerprint: str
    provider: str
    precision: str


class GalleryReadiness(Schema):
    """Sequence numbers of a gallery's last change in the store and in the index; equal when the index is up to date."""

    store_sequence: int
    index_sequence: int
    index: Literal["exact", "ivf"] = Field(
        description="`exact`: a search scores every item. `ivf`: inverted lists; a search scores a part of the items "
        "unless it requests an exact result."
    )
    recall: float | None = Field(
        description="Measured share of the ten nearest items that a search finds; null: the index is exact."
    )


class LoadProgress(Schema):
    """Number of a gallery's items that are in memory, and their total."""

    done: int
    total: int


class Readiness(Schema):
    """Whether the server is ready, and its state."""

    ready: bool
    reasons: tuple[str, ...] = Field(description="Why the server is not ready; empty when it is.")
    models: tuple[ModelReadiness, ...]
    galleries: dict[str, GalleryReadiness] | None = Field(
        description="By gallery name; null where API keys are required."
    )
    load: dict[str, LoadProgress] | None = Field(
        description="Galleries that are still being loaded, by name; null where API keys are required."
    )
    recall: float | None = Field(
        description="Lowest recall of the galleries that are searched approximately; null: all are exact."
    )
    queue_depth: int = Field(description="Images that are waiting for a model.")
    version: str
