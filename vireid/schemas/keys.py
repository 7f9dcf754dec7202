"""API keys."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from pydantic import Field

from vireid.schemas.base import Schema
from vireid.schemas.fields import Id, Time

__all__ = ["KeyDetails", "KeyLimits", "KeyRotation", "KeyWithSecret", "KeysPage", "NewKey", "Scope"]


class Scope(StrEnum):
    """Permission of an API key; `admin` includes the others."""

    SEARCH = "search"
    WRITE = "write"
    ADMIN = "admin"


class KeyLimits(Schema):
    """Limits of an API key; null: no limit of its own."""

    requests_per_minute: int | None = Field(None, ge=1, le=1_000_000)


class NewKey(Schema):
    """An API key to create."""

    name: str = Field(min_length=1, max_length=128)
    scopes: list[Scope] = Field(min_length=1)
    galleries: list[Id] | None = Field(
        None, min_length=1, description="Galleries that the key is limited to; null: all galleries."
    )
    expires_at: Time | None = Field(None, description="Time from which the key is rejected; null: never.")
    limits: KeyLimits = KeyLimits()


class KeyRotation(Schema):
    """A rotation of an API key."""

    overlap_s: int = Field(
        86_400, ge=0, le=30 * 86_400, description="Seconds for which the old secret is accepted too."
    )
    expires_at: Time | None = Field(None, description="New expiry of the key; null: unchanged.")


class KeyDetails(Schema):
    """An API key, without its secret."""

    id: str
    name: str
    scopes: tuple[Scope, ...]
    galleries: tuple[str, ...] | None = Field(
        description="Those galleries of the key that still exist, or null: all galleries. A key is bound to a gallery, "
        "not to its name: it cannot access a new gallery of the same name."
    )
    created_at: datetime
    expires_at: datetime | None = None
    last_used_at: datetime | None = Field(None, description="Last use, to within a few minutes.")
    old_secret_expires_at: datetime | None = Field(
        None, description="Time until which the secret before the last rotation is accepted."
    )
    limits: KeyLimits = KeyLimits()


class KeyWithSecret(KeyDetails):
    """A new API key with its secret, which is never shown again."""

    secret: str


class KeysPage(Schema):
    """API keys in the order of their ids."""

    keys: tuple[KeyDetails, ...]
    next_cursor: str | None
