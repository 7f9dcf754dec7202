"""Loading of galleries into memory: at the start, and again when memory cannot follow the store."""

from __future__ import annotations

import ctypes
import logging
import time
from collections.abc import Mapping
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from functools import partial
from threading import Thread

from server.domain.errors import GalleryNotFound
from server.gallery.handle import GalleryHandle, GalleryHandles
from server.gallery.live_gallery import LiveGallery
from server.storage.protocol import Store

__all__ = ["GalleryLoader"]

_log = logging.getLogger(__name__)

_WRITE_PATIENCE_S = 1.0
"""How long memory may lag behind the store while a write is under way."""


_RETRY_S = 0.5
"""Seconds between two attempts to load a gallery while the store does not answer."""


class GalleryLoader:
    """Fills the memory of galleries from their snapshots and from the store, the smallest gallery first."""

    def __init__(self, handles: GalleryHandles, store: Store) -> None:
        self._handles, self._store = handles, store
        self._closing = False
        self.loading: Future[None] = Future()
        """Done when all galleries are loaded and the store is checked; with an exception, nothing may be served."""

    def start(self, *, in_background: bool) -> None:
        """Load all galleries, either before this returns or in a thread."""
        if in_background:
            Thread(target=self._load_all, name="load", daemon=True).start()
        else:
            self._load_all()
            self.loading.result()

    def stop(self) -> None:
        """Cancel loading, and wait until it has ended."""
        self._closing = True
        wait([self.loading])

    def progress(self) -> Mapping[str, tuple[int, int]]:
        """Return each gallery's sequence number in the store and in memory; -1 if memory cannot be trusted.

        They differ only when something is wrong, or while a write takes longer than a second.
        """
        in_store = self._store.sequence_numbers()
        return {
            name: _progress(handle, in_store[name])
            for name, handle in self._handles.by_name.items()
            if name in in_store
        }

    def unloaded(self) -> Mapping[str, tuple[int, int]]:
        """Return the number of loaded items, and of all items, of each gallery that is still being loaded."""
        return {
            name: (handle.items_loaded, handle.gallery.items)
            for name, handle in self._handles.by_name.items()
            if not handle.loaded
        }

    def catch_up(self, handle: GalleryHandle) -> None:
        """After a failed write: reload the memory, unless the store refused the write or rolled it back."""
        try:
            in_store = self._store.settled_sequence(handle.gallery.name)
        except Exception:
            _log.exception("gallery %s: the store does not answer, searches stop", handle.gallery.name)
            handle.invalidate()
            Thread(target=self._retry, args=(handle,), name="reload", daemon=True).start()
            return
        if handle.wait_for_sequence(in_store, _WRITE_PATIENCE_S) < in_store:
            handle.invalidate()
            self.reload(handle)

    def reload(self, handle: GalleryHandle) -> None:
        """Load an invalid memory from the store. A failure is logged, not raised: the write before it is stored."""
        try:
            # another writer may have reloaded it before
            handle.replace(lambda: self._load_from_store(handle) if handle.live is None else None)
        except Exception:
            _log.exception("gallery %s could not be loaded from the store", handle.gallery.name)

    def _retry(self, handle: GalleryHandle) -> None:
        """Load an invalid memory as soon as the store answers."""
        while handle.live is None and not (self._closing or handle.is_deleted):
            time.sleep(_RETRY_S)
            try:
                self._store.settled_sequence(handle.gallery.name)
            except GalleryNotFound:
                return
            except Exception as error:
                _log.info("gallery %s: the store does not answer yet: %r", handle.gallery.name, error)
            else:
                self.reload(handle)

    def _load_all(self) -> None:
        try:
            if self._handles.snapshots:
                self._handles.snapshots.sweep([handle.gallery for handle in self._handles])
            with ThreadPoolExecutor(1, thread_name_prefix="check") as pool:
                check = pool.submit(self._store.check)
                for handle in sorted(self._handles, key=lambda handle: handle.gallery.items):
                    handle.replace(partial(self._load, handle))
                check.result()
            self._handles.mark_checked()
            _release_memory()
        except BaseException as error:
            self.loading.set_exception(error)
        else:
            self.loading.set_result(None)

    def _load(self, handle: GalleryHandle) -> LiveGallery:
        build, advance = partial(self._handles.new_index, handle.gallery), partial(self._advance, handle)
        live = handle.snapshot and handle.snapshot.read(build, advance)
        if handle.snapshot and live:
            try:
                deleted = self._follow(handle, live)
            except ValueError as error:
                _log.warning("gallery %s: its snapshot is not used: %s", handle.gallery.name, error)
            else:
                if deleted:
                    handle.snapshot.erase(live.view())
                return live
        return self._load_from_store(handle)

    def _load_from_store(self, handle: GalleryHandle) -> LiveGallery:
        handle.items_loaded = 0
        live = LiveGallery(self._handles.new_index(handle.gallery))
        self._follow(handle, live)
        return live

    def _follow(self, handle: GalleryHandle, live: LiveGallery) -> int:
        """Bring memory up to the state of the store; return the number of items deleted meanwhile.

        Raises:
            ValueError: the memory is not an earlier state of the store.
        """
        with self._store.load(handle.gallery.name, live.sequence) as loaded:
            if live.sequence > loaded.sequence:
                raise ValueError(f"it has seen change {live.sequence}, the store has {loaded.sequence}")
            return live.follow(loaded, partial(self._advance, handle))

    def _advance(self, handle: GalleryHandle, items: int) -> None:
        if self._closing:
            raise CancelledError
        handle.items_loaded += items


def _progress(handle: GalleryHandle, in_store: int) -> tuple[int, int]:
    in_memory = handle.wait_for_sequence(in_store, _WRITE_PATIENCE_S)
    return max(in_store, in_memory), in_memory  # memory may hold writes made since ``in_store`` was read


def _release_memory() -> None:
    """Return memory that only loading needed to the system; otherwise the C library keeps it forever."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # only glibc has it
    if trim is not None:
        trim(0)
