"""Deletion of items from the store, from memory and from snapshots, and receipts of erasures."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Collection
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial

from server.domain.errors import GalleryNotFound
from server.domain.types import Erasure, Filter
from server.gallery.handle import GalleryHandle, GalleryHandles
from server.gallery.live_gallery import GalleryChange
from server.gallery.writer import GalleryWriter
from server.storage.protocol import DeleteResult, Store

__all__ = ["ItemErasure"]

Deletion = Callable[[Callable[[DeleteResult], None]], DeleteResult]
"""A deletion of the store, which calls its argument after each commit."""


class ItemErasure:
    """Deletes items. Every method that names a gallery raises ``GalleryNotFound`` and ``NotReady``."""

    def __init__(self, handles: GalleryHandles, store: Store, writer: GalleryWriter) -> None:
        self._handles, self._store, self._writer = handles, store, writer

    def delete_item(self, name: str, id: str) -> None:
        """Delete an item with its vector and thumbnail. Raises ``ItemNotFound``."""
        self._delete(name, partial(self._store.delete_item, name, id))

    def erase(self, name: str, where: Filter, key_id: str | None = None, *, jobs: int = 0) -> Erasure:
        """Delete all items that pass ``where``, verify that nothing of them remains, and store a receipt.

        The receipt's detail says what was deleted. Under ``left`` it says how much the store, the memory of searches
        and the snapshots still hold (0 each), whether the log and the replicas of the store still have it (False; None
        where the server cannot know, as of PostgreSQL's log and standbys, and of any backup), and ``jobs``: how many
        running jobs of this gallery may hold such items, or add them.
        """
        deleted = self._delete(name, partial(self._store.delete_items, name, where))
        handle = self._handles.find(name)
        view = handle.ready().view()
        scrubbed = self._store.scrub()
        remaining = {
            "store": self._store.count_remaining(name, deleted.ids),
            "memory": sum(view.row_of(id) is not None for id in deleted.ids),
            "snapshot": 0 if handle.snapshot is None else handle.snapshot.count_remaining(view),
            "log": None if scrubbed is None else not scrubbed,
            "replicas": None if scrubbed is None else False,
            "backups": None,
            "jobs": jobs,
        }
        receipt = Erasure(
            id=uuid.uuid4().hex,
            gallery=name,
            at=datetime.now(UTC),
            key_id=key_id,
            detail={
                "items": len(deleted.ids),
                "vectors": deleted.vectors,
                "thumbnails": deleted.thumbnails,
                "ids_sha256": hashlib.sha256("\n".join(deleted.ids).encode()).hexdigest(),
                "left": remaining,
            },
        )
        self._store.record_erasure(receipt)
        return receipt

    def receipt(self, id: str) -> Erasure:
        """Return one receipt, also of a deleted gallery. Raises ``ErasureNotFound``."""
        self._handles.require_checked()
        return self._store.erasure(id)

    def receipts(
        self, *, limit: int, after: str | None = None, galleries: Collection[str] | None = None
    ) -> list[Erasure]:
        """Return at most ``limit`` receipts, newest first; see ``Store.erasures``."""
        self._handles.require_checked()
        return self._store.erasures(limit=limit, after=after, galleries=galleries)

    def expire(self, now: datetime) -> dict[str, int]:
        """Delete items that are older than their gallery's ``retention_days``; return their number by gallery."""
        self._handles.require_checked()
        limits = {g.name: now - timedelta(days=g.retention_days) for g in self._store.galleries() if g.retention_days}
        deleted = {}
        for name, limit in limits.items():
            with suppress(GalleryNotFound):  # deleted meanwhile
                deleted[name] = len(self._delete(name, partial(self._store.delete_stored_before, name, limit)).ids)
        return {name: count for name, count in deleted.items() if count}

    def _delete(self, name: str, delete: Deletion) -> DeleteResult:
        return self._writer.write(name, partial(self._delete_from, delete))

    def _delete_from(self, delete: Deletion, handle: GalleryHandle) -> DeleteResult:
        with self._writer.in_step(handle):
            try:
                return delete(lambda result: handle.apply(GalleryChange(result.sequence, deleted=result.ids)))
            finally:
                if handle.snapshot:
                    handle.snapshot.erase(None if handle.live is None else handle.live.view())
