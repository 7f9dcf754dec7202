"""Erasures of items and their receipts."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from vireid.schemas.base import Schema

__all__ = ["DeletionResult", "Receipt", "ReceiptsPage", "RemainingData"]


class RemainingData(Schema):
    """Data of erased items that a check after the erasure still found; zero, false, or null where it cannot know."""

    store: int = Field(description="Rows of these items, and vectors and thumbnails without an item.")
    memory: int = Field(description="Items that a search could still find.")
    snapshot: int = Field(description="Vectors in the index snapshot on disk.")
    log: bool | None = Field(
        description="Whether the database's log still holds them, due to a reader or a full disk. null: not known. "
        "PostgreSQL keeps deleted rows in its files and its write-ahead log until it uses their space again."
    )
    replicas: bool | None = Field(
        None, description="Whether copies that the database keeps of itself hold them. null: not known."
    )
    backups: bool | None = Field(None, description="Whether backups hold them. The server cannot know: null.")
    jobs: int = Field(description="Unfinished jobs of the gallery, whose uploads may hold or add such items.")


class Receipt(Schema):
    """Receipt of an erasure. It names no item: `ids_sha256` is the SHA-256 of their sorted ids, joined by newlines."""

    id: str
    gallery: str
    at: datetime
    items: int
    vectors: int
    thumbnails: int
    ids_sha256: str
    left: RemainingData

    @property
    def complete(self) -> bool:
        """Whether no data of the erased items is known to remain."""
        return not any(self.left.model_dump().values())


class ReceiptsPage(Schema):
    """Receipts, newest first."""

    receipts: tuple[Receipt, ...]
    next_cursor: str | None


class DeletionResult(Schema):
    """Number of deleted items and the receipt."""

    deleted: int
    receipt: Receipt
