"""Embedding of crops."""

from __future__ import annotations

from pydantic import Field

from models.card import Modality
from vireid.schemas.base import Schema
from vireid.schemas.fields import ModalityChoice, Upload
from vireid.schemas.problems import Problem

__all__ = ["EmbeddingFailure", "EmbeddingRow", "Embeddings", "EmbeddingsForm"]


class EmbeddingsForm(Schema):
    """Crops to embed."""

    images: list[Upload] = Field(min_length=1)
    modality: list[ModalityChoice] = Field(
        default=[ModalityChoice.AUTO], min_length=1, description="One value for all images, or one for each."
    )
    model: str | None = Field(None, description="Name of a loaded model; null: the default model.")


class EmbeddingRow(Schema):
    """Embedding of image `index`, of unit length."""

    index: int
    modality: Modality
    vector: tuple[float, ...]


class EmbeddingFailure(Schema):
    """Error of image `index`."""

    index: int
    error: Problem


class Embeddings(Schema):
    """Embeddings of the images of a request."""

    model: str
    fingerprint: str
    dimension: int
    embeddings: tuple[EmbeddingRow, ...]
    errors: tuple[EmbeddingFailure, ...] = Field(description="Images that failed; the others were embedded.")
