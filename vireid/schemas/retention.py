"""Retention."""

from __future__ import annotations

from pydantic import Field

from vireid.schemas.base import Schema

__all__ = ["RetentionStatus"]


class RetentionStatus(Schema):
    """Whether retention is stopped until an admin confirms the clock."""

    stopped: bool
    reason: str | None = Field(description="Why it is stopped; null: it runs.")
