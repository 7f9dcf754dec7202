"""Pagination of lists: each response holds ``next_cursor``, null on the last page."""

from __future__ import annotations

from pydantic import Field

from vireid.schemas.base import Schema

__all__ = ["MAX_PAGE", "PageQuery"]

MAX_PAGE = 1000


class PageQuery(Schema):
    """Query parameters that select a page of a list."""

    limit: int = Field(100, ge=1, le=MAX_PAGE, description="Maximum number of entries in the page.")
    cursor: str | None = Field(None, max_length=512, description="`next_cursor` of the previous page.")
