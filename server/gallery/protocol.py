"""The store seam: what keeps galleries promises here, whatever it keeps them in."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from server.gallery.types import (
    Erasure,
    Filter,
    Gallery,
    Item,
    NewItem,
    Renewal,
    StoredVectors,
    Vectors,
    WriteStatus,
)

__all__ = [
    "DRAFT",
    "GALLERY_CHANGES",
    "ITEM_CHANGES",
    "Chunk",
    "Deleted",
    "Loaded",
    "Put",
    "Store",
    "Unrenewed",
    "check_changes",
]

DRAFT = "~"
"""Ends the name of a gallery that is still being made: no list has it, and no request can name it."""

GALLERY_CHANGES = frozenset({"retention_days", "description"})
"""What of a gallery may change."""

ITEM_CHANGES = frozenset({"identity", "camera", "captured_at", "attributes"})
"""What of an item may change."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Items of a gallery with their rows, int64 ``[n]``, and vectors as stored (``VectorType``), ``[n, dimension]``."""

    rows: NDArray[np.int64]
    items: Sequence[Item]
    vectors: StoredVectors


@dataclass(frozen=True, slots=True)
class Loaded:
    """A gallery at one moment: its sequence number, and what of its items was asked for.

    ``rows()`` gives the rows of all its items, sorted. A row stands for an item as it was put: a replaced item gets a
    new, higher one, and none is given twice.
    """

    sequence: int
    chunks: Iterator[Chunk]
    rows: Callable[[], NDArray[np.int64]]


@dataclass(frozen=True, slots=True)
class Put:
    """What ``put`` did to each item, in which row it is now, int64 ``[n]``, and the new sequence number."""

    statuses: list[WriteStatus]
    rows: NDArray[np.int64]
    sequence: int


@dataclass(frozen=True, slots=True)
class Deleted:
    """What is gone: ids in order, numbers of vectors and thumbnails; and the new sequence number."""

    ids: list[str]
    vectors: int
    thumbnails: int
    sequence: int


@dataclass(frozen=True, slots=True)
class Unrenewed:
    """An item in its row, which has no vector of the other model yet, and its thumbnail."""

    row: int
    item: Item
    thumbnail: bytes | None


class Store(Protocol):
    """Galleries and their items. What a method that writes has returned from is on the disk; what raised is not stored.

    Each gallery has a sequence number: 0 at first, one more with each committed change of its items. Methods may be
    called from any thread. A method that names a gallery raises ``GalleryNotFound`` without it, one that names an item
    ``ItemNotFound``, one that writes ``StorageFull`` when the disk has no room.

    ``then`` is called with the result of a write when that is on the disk, and before the method returns: for the
    writes of a gallery in the order of their sequence numbers, never two at the same time. What it raises the method
    raises, and the write stands. It must not write itself.
    """

    def create_gallery(self, gallery: Gallery, then: Callable[[], None] | None = None) -> None:
        """Store an empty gallery (``items`` is not looked at). Raises ``GalleryExists``, ``AliasExists``."""

    def gallery(self, name: str) -> Gallery:
        """One gallery, with its number of items."""

    def galleries(self, *, limit: int | None = None, after: str | None = None) -> list[Gallery]:
        """Galleries by name, those that come after ``after``, without drafts; ``limit`` None: all."""

    def drafts(self) -> list[str]:
        """The names of galleries that are still being made; they end in ``DRAFT``."""

    def rename_gallery(self, name: str, to: str, then: Callable[[], None] | None = None) -> None:
        """Give a gallery another name. Raises ``GalleryExists``, ``AliasExists``."""

    def update_gallery(self, name: str, changes: Mapping[str, object]) -> Gallery:
        """Set what ``GALLERY_CHANGES`` names. Raises ValueError for anything else."""

    def delete_gallery(self, name: str, then: Callable[[], None] | None = None) -> None:
        """Remove a gallery with everything in it and its aliases.

        Its name is free when ``then`` is called; the rest goes bit by bit, while others write. If that is interrupted
        (``StorageFull``, a crash), the next start of the store goes on with it.
        """

    def sequences(self) -> dict[str, int]:
        """The sequence number of every gallery."""

    def set_alias(self, name: str, gallery: str) -> None:
        """Have ``name`` stand for a gallery, from now on if it stood for another. Raises ``GalleryExists``."""

    def remove_alias(self, name: str) -> None:
        """Take an alias away. Raises ``AliasNotFound``."""

    def aliases(self) -> dict[str, str]:
        """The gallery of each alias."""

    def put(self, name: str, items: Sequence[NewItem], then: Callable[[Put], None] | None = None) -> Put:
        """Store all items or none; one whose id is there (or came earlier in ``items``) is replaced whole."""

    def item(self, name: str, item: str) -> Item:
        """One item."""

    def items(self, name: str, where: Filter, *, limit: int, after: str | None = None) -> list[Item]:
        """At most ``limit`` items that pass ``where``, by id, those that come after ``after``."""

    def named(self, name: str, ids: Collection[str]) -> dict[str, Item]:
        """Those of the items with these ids that are there."""

    def contents(self, name: str, ids: Collection[str]) -> dict[str, str]:
        """The ``content`` of those items that are there and have one."""

    def update_item(
        self, name: str, item: str, changes: Mapping[str, object], then: Callable[[Item, int], None] | None = None
    ) -> tuple[Item, int]:
        """Set what ``ITEM_CHANGES`` names; returns the item and the new sequence. ValueError for anything else."""

    def delete_item(self, name: str, item: str, then: Callable[[Deleted], None] | None = None) -> Deleted:
        """Remove an item with its vector and thumbnail, from every file."""

    def delete_items(self, name: str, where: Filter, then: Callable[[Deleted], None] | None = None) -> Deleted:
        """Remove all that pass ``where``, from every file; the sequence number is the old one if there are none.

        On a full disk it happens bit by bit, each with a sequence number and a call of ``then``; if there is no room
        for one, what went before it is gone.
        """

    def delete_stored_before(
        self, name: str, moment: datetime, then: Callable[[Deleted], None] | None = None
    ) -> Deleted:
        """Remove all that were stored before ``moment``, as ``delete_items`` does."""

    def thumbnail(self, name: str, item: str) -> bytes:
        """An item's thumbnail. ``ItemNotFound`` also when it has none."""

    def vector(self, name: str, item: str) -> tuple[Item, Vectors]:
        """An item and its vector, float32 ``[dimension]``, rounded where the gallery stores float16."""

    def dump(self, name: str) -> AbstractContextManager[tuple[Gallery, Iterator[NewItem]]]:
        """A gallery and all its items, by row, both of one moment; to put them makes the same gallery.

        Raises ``DatabaseDamaged`` while iterating, as ``load`` does.
        """

    def begin_renewal(self, name: str, renewal: Renewal) -> None:
        """Prepare for vectors of another model. Goes on with the same renewal, does away with another one."""

    def renewals(self) -> dict[str, Renewal]:
        """The renewal of each gallery that has one."""

    def without_thumbnail(self, name: str) -> int:
        """How many items have no thumbnail."""

    def unrenewed(self, name: str, *, limit: int, after: int = 0) -> list[Unrenewed]:
        """At most ``limit`` items without a vector of the other model, by row, those in rows behind ``after``."""

    def renew(self, name: str, vectors: Mapping[int, Vectors]) -> None:
        """Store vectors of the other model, by row; what is in none any more, or has one, is passed over."""

    def switch_renewal(self, name: str, then: Callable[[], None] | None = None) -> None:
        """Bind the gallery to the other model, whose vectors are its own from now on. ValueError while any lacks."""

    def end_renewal(self, name: str) -> None:
        """Remove the vectors that are not the gallery's own, bit by bit, and then the renewal."""

    def load(self, name: str, since: int = 0, *, renewed: bool = False) -> AbstractContextManager[Loaded]:
        """All items that were put or updated after sequence number ``since``, by row; 0: all there are.

        ``renewed``: with the vectors of the other model, which every item must have.

        Raises ``DatabaseDamaged`` while iterating, when something is not what was written.
        """

    def left_of(self, name: str, ids: Collection[str]) -> int:
        """How many of these items are there, and vectors and thumbnails, of any gallery, that belong to no item."""

    def record_erasure(self, erasure: Erasure) -> None:
        """Keep a receipt, under an id that none has."""

    def erasure(self, id: str) -> Erasure:
        """One receipt. Raises ``ErasureNotFound``."""

    def erasures(
        self, *, limit: int, after: str | None = None, galleries: Collection[str] | None = None
    ) -> list[Erasure]:
        """At most ``limit`` receipts, newest first, those that follow receipt ``after`` in that order.

        ``galleries``: only receipts of these. Raises ``ErasureNotFound`` for ``after``.
        """

    def check(self) -> None:
        """Read everything and raise ``DatabaseDamaged`` if it is broken. Slow; may run beside anything else."""

    def scrub(self) -> bool:
        """Whether no file holds what was deleted any more; False while a reader needs it, or without room to work in.

        A write that deletes tries this by itself; when it could not, the last reader does.
        """

    def close(self) -> None:
        """Let go of the database."""


def check_changes(changes: Mapping[str, object], known: frozenset[str]) -> None:
    """Raise ValueError for a change that is not among ``known``."""
    if unknown := sorted(changes.keys() - known):
        raise ValueError(f"cannot change {', '.join(unknown)}; what may change is {', '.join(sorted(known))}")
