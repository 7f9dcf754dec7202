"""The ``Store`` protocol: what every implementation of the store of galleries guarantees."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from server.domain.types import (
    Erasure,
    Filter,
    Gallery,
    Item,
    NewItem,
    Reembedding,
    StoredVectors,
    Vectors,
    WriteStatus,
)

__all__ = [
    "DRAFT_SUFFIX",
    "GALLERY_CHANGES",
    "ITEM_CHANGES",
    "DeleteResult",
    "ItemChunk",
    "LoadedGallery",
    "PendingReembedding",
    "PutResult",
    "Store",
    "check_changes",
]

DRAFT_SUFFIX = "~"
"""Ends the name of a gallery that is being created: no list shows it, and no request can name it."""

GALLERY_CHANGES = frozenset({"retention_days", "description"})
"""Fields of a gallery that may change."""

ITEM_CHANGES = frozenset({"identity", "camera", "captured_at", "attributes"})
"""Fields of an item that may change."""


@dataclass(frozen=True, slots=True)
class ItemChunk:
    """Items of a gallery with their rows, int64 ``[n]``, and vectors as stored (``VectorType``), ``[n, dimension]``."""

    rows: NDArray[np.int64]
    items: Sequence[Item]
    vectors: StoredVectors


@dataclass(frozen=True, slots=True)
class LoadedGallery:
    """A gallery at one moment: its sequence number and the requested items.

    ``rows()`` returns the rows of all its items, sorted. A row stands for an item as it was put: a replaced item gets a
    new, higher row, and no row is used twice.
    """

    sequence: int
    chunks: Iterator[ItemChunk]
    rows: Callable[[], NDArray[np.int64]]


@dataclass(frozen=True, slots=True)
class PutResult:
    """The result of ``put``: the status and the new row of each item, int64 ``[n]``, and the new sequence number."""

    statuses: list[WriteStatus]
    rows: NDArray[np.int64]
    sequence: int


@dataclass(frozen=True, slots=True)
class DeleteResult:
    """The result of a deletion: ids in order, numbers of vectors and thumbnails, and the new sequence number."""

    ids: list[str]
    vectors: int
    thumbnails: int
    sequence: int


@dataclass(frozen=True, slots=True)
class PendingReembedding:
    """An item, its row and its thumbnail, that has no vector of the other model yet."""

    row: int
    item: Item
    thumbnail: bytes | None


class Store(Protocol):
    """Galleries and their items. When a method that writes returns, the write is on disk; if it raises, it is not.

    Each gallery has a sequence number: 0 at first, increased by one with each committed change of its items. Methods
    may be called from any thread. A method that names a gallery raises ``GalleryNotFound``, one that names an item
    ``ItemNotFound``, and one that writes ``StorageFull`` when the disk has no room.

    ``on_commit`` is called with the result of a write when the write is on disk and before the method returns: for the
    writes of a gallery in the order of their sequence numbers, never two at the same time. The method raises what it
    raises, and the write stands. It must not write itself.
    """

    def create_gallery(self, gallery: Gallery, on_commit: Callable[[], None] | None = None) -> None:
        """Store an empty gallery; ``gallery.items`` is ignored. Raises ``GalleryExists`` and ``AliasExists``."""

    def gallery(self, name: str) -> Gallery:
        """Return one gallery with its number of items."""

    def galleries(self, *, limit: int | None = None, after: str | None = None) -> list[Gallery]:
        """Return galleries by name, starting behind ``after``, without drafts. ``limit`` None: all."""

    def drafts(self) -> list[str]:
        """Return the names of galleries that are being created; they end in ``DRAFT_SUFFIX``."""

    def rename_gallery(self, name: str, to: str, on_commit: Callable[[], None] | None = None) -> None:
        """Rename a gallery. Raises ``GalleryExists`` and ``AliasExists``."""

    def update_gallery(self, name: str, changes: Mapping[str, object]) -> Gallery:
        """Set fields that ``GALLERY_CHANGES`` names. Raises ValueError for any other field."""

    def delete_gallery(self, name: str, on_commit: Callable[[], None] | None = None) -> None:
        """Delete a gallery with all its contents and aliases.

        Its name is free when ``on_commit`` is called; the contents are deleted in batches, between which others write.
        After an interruption (``StorageFull``, a crash), the next start of the store finishes the deletion.
        """

    def settled_sequence(self, name: str) -> int:
        """Return the sequence number of a gallery once no write is under way, also none that lost its outcome."""

    def sequence_numbers(self) -> dict[str, int]:
        """Return the sequence number of every gallery."""

    def set_alias(self, name: str, gallery: str) -> None:
        """Point an alias to a gallery, also if it pointed to another one. Raises ``GalleryExists``."""

    def remove_alias(self, name: str) -> None:
        """Remove an alias. Raises ``AliasNotFound``."""

    def aliases(self) -> dict[str, str]:
        """Return the gallery of each alias."""

    def put(
        self, name: str, items: Sequence[NewItem], on_commit: Callable[[PutResult], None] | None = None
    ) -> PutResult:
        """Store all items or none. An item whose id exists (or comes earlier in ``items``) is replaced as a whole."""

    def item(self, name: str, item: str) -> Item:
        """Return one item."""

    def items(self, name: str, where: Filter, *, limit: int, after: str | None = None) -> list[Item]:
        """Return at most ``limit`` items that pass ``where``, by id, starting behind ``after``."""

    def items_by_id(self, name: str, ids: Collection[str]) -> dict[str, Item]:
        """Return those of the items that exist."""

    def content_hashes(self, name: str, ids: Collection[str]) -> dict[str, str]:
        """Return the ``content`` of those items that exist and have one."""

    def update_item(
        self, name: str, item: str, changes: Mapping[str, object], on_commit: Callable[[Item, int], None] | None = None
    ) -> tuple[Item, int]:
        """Set fields that ``ITEM_CHANGES`` names; return the item and the new sequence number.

        Raises ValueError for any other field.
        """

    def delete_item(
        self, name: str, item: str, on_commit: Callable[[DeleteResult], None] | None = None
    ) -> DeleteResult:
        """Delete an item with its vector and thumbnail, from every file."""

    def delete_items(
        self, name: str, where: Filter, on_commit: Callable[[DeleteResult], None] | None = None
    ) -> DeleteResult:
        """Delete all items that pass ``where``, from every file; without any, the sequence number stays.

        On a full disk they are deleted in small steps, each with a sequence number and a call of ``on_commit``. If
        there is no room for a step, the steps before it stand.
        """

    def delete_stored_before(
        self, name: str, time: datetime, on_commit: Callable[[DeleteResult], None] | None = None
    ) -> DeleteResult:
        """Delete all items that were stored before ``time``, as ``delete_items`` does."""

    def thumbnail(self, name: str, item: str) -> bytes:
        """Return an item's thumbnail. Raises ``ItemNotFound`` also if it has none."""

    def vector(self, name: str, item: str) -> tuple[Item, Vectors]:
        """Return an item and its vector, float32 ``[dimension]``, rounded where the gallery stores float16."""

    def dump(self, name: str) -> AbstractContextManager[tuple[Gallery, Iterator[NewItem]]]:
        """Open a gallery and all its items, by row, as of one moment; putting them again makes the same gallery.

        Iteration raises ``DatabaseDamaged`` as ``load`` does.
        """

    def begin_reembedding(self, name: str, reembedding: Reembedding) -> None:
        """Prepare for vectors of another model. Continues the same re-embedding, ends another one."""

    def reembeddings(self) -> dict[str, Reembedding]:
        """Return the re-embedding of each gallery that has one."""

    def count_without_thumbnail(self, name: str) -> int:
        """Count the items without a thumbnail."""

    def pending_reembedding(self, name: str, *, limit: int, after: int = 0) -> list[PendingReembedding]:
        """Return at most ``limit`` items without a vector of the other model, by row, in rows behind ``after``."""

    def store_reembedded(self, name: str, vectors: Mapping[int, Vectors]) -> None:
        """Store vectors of the other model by row, except for rows that no longer exist or already have one."""

    def switch_model(self, name: str, on_commit: Callable[[], None] | None = None) -> None:
        """Bind the gallery to the other model and its vectors. Raises ValueError while an item lacks one."""

    def end_reembedding(self, name: str) -> None:
        """Delete the vectors that are not the gallery's own, in batches, and then the re-embedding."""

    def load(self, name: str, since: int = 0, *, reembedded: bool = False) -> AbstractContextManager[LoadedGallery]:
        """Open all items that were put or updated after sequence number ``since``, by row; 0: all items.

        ``reembedded``: with the vectors of the other model, which every item must have.

        Iteration raises ``DatabaseDamaged`` if data is not what was written.
        """

    def count_remaining(self, name: str, ids: Collection[str]) -> int:
        """Count those of the items that exist, and vectors and thumbnails of any gallery that belong to no item."""

    def record_erasure(self, erasure: Erasure) -> None:
        """Store a receipt under an unused id."""

    def erasure(self, id: str) -> Erasure:
        """Return one receipt. Raises ``ErasureNotFound``."""

    def erasures(
        self, *, limit: int, after: str | None = None, galleries: Collection[str] | None = None
    ) -> list[Erasure]:
        """Return at most ``limit`` receipts, newest first, starting behind receipt ``after``.

        ``galleries``: only receipts of these. Raises ``ErasureNotFound`` for ``after``.
        """

    def check(self) -> None:
        """Read everything and raise ``DatabaseDamaged`` if it is broken. Slow; may run beside anything else."""

    def scrub(self) -> bool | None:
        """Remove deleted data from every file; return False if a reader still needs it or the disk has no room.

        None: the files are PostgreSQL's, which removes it later, and does not tell when.

        A deletion does this by itself; if it could not, the last reader does.
        """

    def close(self) -> None:
        """Close the database."""


def check_changes(changes: Mapping[str, object], known: frozenset[str]) -> None:
    """Raise ValueError for a change that is not among ``known``."""
    if unknown := sorted(changes.keys() - known):
        raise ValueError(f"cannot change {', '.join(unknown)}; what may change is {', '.join(sorted(known))}")
