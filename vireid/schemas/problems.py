"""Errors as problem details (RFC 9457)."""

from __future__ import annotations

from pydantic import Field

from vireid.schemas.base import Schema

__all__ = ["FieldError", "Problem"]


class FieldError(Schema):
    """One invalid field or file of a request."""

    field: str = Field(examples=["query.k"])
    detail: str = Field(examples=["must be at most 1000"])


class Problem(Schema):
    """Problem details of RFC 9457."""

    type: str = Field(
        description="Page of the problem type, relative to the server.", examples=["/problems/gallery-not-found"]
    )
    title: str
    status: int
    detail: str
    instance: str | None = Field(None, description="Path of the request.")
    request_id: str | None = None
    errors: tuple[FieldError, ...] = Field(default=(), description="Each invalid field or file.")
