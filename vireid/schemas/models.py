"""Loaded models."""

from __future__ import annotations

from models.card import Card
from vireid.schemas.base import Schema

__all__ = ["ModelsList"]


class ModelsList(Schema):
    """Cards of the loaded models and the name of the default model."""

    models: tuple[Card, ...]
    default: str
