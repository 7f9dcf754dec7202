"""Duplicates: pairs of items with nearly the same embedding."""

from __future__ import annotations

from pydantic import Field

from vireid.schemas.base import Schema
from vireid.schemas.filters import FilterParameters
from vireid.schemas.items import ItemSummary
from vireid.schemas.paging import PageQuery

__all__ = ["DuplicatePair", "DuplicatesPage", "DuplicatesSelection"]


class DuplicatesSelection(FilterParameters, PageQuery):
    """A page of the duplicates among the items that pass a filter."""

    min_score: float = Field(0.98, ge=-1, le=1, description="Minimum cosine of a pair.")


class DuplicatePair(Schema):
    """Two items with nearly the same embedding; `a` was stored first."""

    a: ItemSummary
    b: ItemSummary
    score: float = Field(description="Cosine, from -1 to 1.")
    identical: bool = Field(description="Whether both were added with the same file or precomputed embedding.")


class DuplicatesPage(Schema):
    """Pairs in the order in which their items were stored."""

    pairs: tuple[DuplicatePair, ...]
    items: int = Field(description="Number of items to compare with each other.")
    walked: int = Field(description="Number of items that have been compared with all others so far.")
    next_cursor: str | None
