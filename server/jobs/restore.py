"""Handler of ``restore`` jobs: an archive of a gallery (see ``server.gallery.archive``) into a new gallery.

The gallery is a draft, which no request can see, until all of it is stored.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime

from server.domain.errors import ArchiveRejected
from server.domain.types import Gallery
from server.gallery.archive import ArchivedGallery, ArchiveManifest
from server.gallery.galleries import Galleries
from server.jobs.archive_reading import PartRead
from server.jobs.cleanup import draft_of
from server.jobs.imports.handler import stored_upload
from server.jobs.reader_process import READER_MEMORY, read_in_process
from server.jobs.runner import Context
from server.storage.encryption import Encryption
from server.storage.protocol import Store

__all__ = ["RESTORE", "Restore"]

RESTORE = "restore"
"""The ``kind`` of these jobs."""

_MEMORY = 3 * READER_MEMORY


class Restore:
    """Makes galleries of ``store`` out of snapshots."""

    def __init__(self, galleries: Galleries, store: Store, encryption: Encryption) -> None:
        self._galleries, self._store, self._encryption = galleries, store, encryption

    def run(self, context: Context) -> None:
        """See :class:`JobHandler`. A position is the number of parts that are stored.

        Raises:
            ArchiveRejected: the file is damaged, cut off, or no snapshot; nothing is left of it.
            GalleryExists, AliasExists: the name was given away meanwhile.
        """
        self._galleries.catalog.list(limit=1)  # NotReady until the store is known to be sound
        draft = draft_of(context.job.id)
        stored = context.job.cursor
        if stored is not None and draft not in self._store.drafts():
            return  # it was published before a crash
        arguments = (stored_upload(context.folder, self._encryption), stored or 0)
        with closing(
            read_in_process("server.jobs.archive_reading:read_archive", *arguments, check=context.check, memory=_MEMORY)
        ) as messages:
            manifest = next(messages)
            context.set_total(manifest.items)
            if stored is None:
                self._begin(draft, manifest.gallery)
                context.advance(0)
            self._put_parts(context, draft, manifest, messages)
        if self._store.gallery(draft).items != manifest.items:
            raise ArchiveRejected("the snapshot is damaged: some of its items have the same id")
        self._galleries.catalog.publish(draft, context.job.gallery or "")

    def _begin(self, draft: str, gallery: ArchivedGallery) -> None:
        if draft in self._store.drafts():
            self._store.delete_gallery(draft)
        values = gallery.model_dump() | {"name": draft, "created_at": datetime.now(UTC), "items": 0}
        self._store.create_gallery(Gallery(**values))

    def _put_parts(self, context: Context, draft: str, manifest: ArchiveManifest, messages: Iterator[PartRead]) -> None:
        for read in messages:
            if read.items:
                self._store.put(draft, read.items)
            if read.number is not None:
                context.advance(read.number, done=manifest.parts[read.number - 1].items)
