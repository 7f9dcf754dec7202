"""The galleries of a server and their aliases: create, list, change, delete, publish, switch to another model."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from threading import Lock

from server.domain.types import Gallery, VectorType
from server.gallery.handle import GalleryHandle, GalleryHandles
from server.gallery.live_gallery import LiveGallery
from server.storage.protocol import LoadedGallery, Store

__all__ = ["GalleryCatalog"]


class GalleryCatalog:
    """Galleries and aliases. Every method that names a gallery raises ``GalleryNotFound`` and ``NotReady``."""

    def __init__(self, handles: GalleryHandles, store: Store) -> None:
        self._handles, self._store = handles, store
        self._aliases_lock = Lock()
        self._read_aliases()

    def create(
        self,
        name: str,
        *,
        model: str,
        fingerprint: str,
        dimension: int,
        retention_days: int | None = None,
        description: str | None = None,
        vector_type: VectorType = VectorType.FLOAT32,
        thumbnails: bool = True,
    ) -> Gallery:
        """Create an empty gallery for vectors of one model. Raises ``GalleryExists`` and ``AliasExists``."""
        self._handles.require_checked()
        gallery = Gallery(
            name=name,
            model=model,
            fingerprint=fingerprint,
            dimension=dimension,
            created_at=datetime.now(UTC),
            items=0,
            description=description,
            retention_days=retention_days,
            vector_type=vector_type,
            thumbnails=thumbnails,
        )
        handle = self._handles.open(gallery, LiveGallery(self._handles.new_index(gallery)))
        self._store.create_gallery(gallery, partial(self._handles.add, handle))
        return gallery

    def get(self, name: str) -> Gallery:
        """Return one gallery as it is in the store."""
        self._handles.find(name)
        return self._store.gallery(name)

    def cached(self, name: str) -> Gallery:
        """Return a gallery from memory: its model never changes, its other fields may have changed since."""
        return self._handles.find(name).gallery

    def list(self, *, limit: int, after: str | None = None) -> builtins.list[Gallery]:
        """Return at most ``limit`` galleries by name, starting behind ``after``."""
        self._handles.require_checked()
        return self._store.galleries(limit=limit, after=after)

    def update(self, name: str, changes: Mapping[str, object]) -> Gallery:
        """Set ``retention_days`` or ``description``. Raises ValueError for any other field."""
        self._handles.find(name)
        return self._store.update_gallery(name, changes)

    def delete(self, name: str) -> None:
        """Delete a gallery with its items, vectors, thumbnails and aliases."""
        handle = self._handles.find(name)
        try:
            with handle.exclusive():
                self._store.delete_gallery(name, partial(self._handles.remove, name))
        finally:
            self._read_aliases()
            if handle.snapshot and self._handles.by_name.get(name) is not handle:
                handle.snapshot.destroy()

    def publish(self, draft: str, name: str) -> None:
        """Turn a draft of the store into a gallery, atomically. Raises ``GalleryExists`` and ``AliasExists``."""
        self._handles.require_checked()
        gallery = replace(self._store.gallery(draft), name=name)
        handle = self._loaded_handle(gallery, self._store.load(draft))
        self._store.rename_gallery(draft, name, partial(self._handles.add, handle))

    def switch_model(self, name: str, finish: Callable[[], None]) -> None:
        """Bind a gallery to the model of its re-embedding: a search sees only old or only new vectors.

        Writes wait while ``finish`` re-embeds the last items and until the new vectors are in memory. Searches go on.
        """
        old = self._handles.find(name)
        with old.exclusive():
            finish()
            model = self._store.reembeddings()[name]
            gallery = replace(old.gallery, model=model.model, fingerprint=model.fingerprint, dimension=model.dimension)
            handle = self._loaded_handle(gallery, self._store.load(name, reembedded=True))

            def on_commit() -> None:
                self._handles.add(handle)
                old.mark_deleted()

            self._store.switch_model(name, on_commit)
        if old.snapshot:
            old.snapshot.destroy()

    def resolve(self, name: str) -> str:
        """Return the gallery that an alias stands for, or ``name`` itself, whether or not it exists."""
        return self._aliases.get(name, name)

    def aliases(self) -> dict[str, str]:
        """Return the gallery of each alias."""
        return dict(self._aliases)

    def set_alias(self, alias: str, name: str) -> None:
        """Point ``alias`` to a gallery, also if it pointed to another one. Raises ``GalleryExists``."""
        self._handles.find(name)
        self._store.set_alias(alias, name)
        self._read_aliases()

    def remove_alias(self, alias: str) -> None:
        """Remove an alias. Raises ``AliasNotFound``."""
        self._handles.require_checked()
        self._store.remove_alias(alias)
        self._read_aliases()

    def _read_aliases(self) -> None:
        with self._aliases_lock:  # the last reader has read the latest state
            self._aliases = self._store.aliases()

    def _loaded_handle(self, gallery: Gallery, load: AbstractContextManager[LoadedGallery]) -> GalleryHandle:
        live = LiveGallery(self._handles.new_index(gallery))
        with load as loaded:
            live.follow(loaded)
        return self._handles.open(gallery, live)
