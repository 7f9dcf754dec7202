"""The handle of one gallery: its fixed metadata and its memory, which follows the store; and the table of handles."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Condition, Lock

from server.domain.errors import GalleryNotFound, NotReady
from server.domain.types import Gallery
from server.gallery.live_gallery import GalleryChange, LiveGallery
from server.gallery.snapshots import Snapshot, SnapshotDirectory
from server.index.ivf import InvertedLists
from server.index.protocol import BuildIndex, VectorIndex

__all__ = ["GalleryHandle", "GalleryHandles"]

_log = logging.getLogger(__name__)


class GalleryHandle:
    """One gallery: the metadata that never changes, and its memory, None while it is not loaded or not trusted.

    Memory sees every change in the order of the store's sequence numbers: ``apply`` is called in that order, after the
    commit and before the write returns. A missing or failed change invalidates the memory until ``replace`` rebuilds
    it from the store.
    """

    def __init__(self, gallery: Gallery, live: LiveGallery | None = None, snapshot: Snapshot | None = None) -> None:
        self.gallery, self.snapshot = gallery, snapshot
        self.next_snapshot_at = 0.0
        """Earliest time of the next snapshot, on the monotonic clock."""
        self.loaded = live is not None
        self.rows_without_useful_lists = 0
        """Number of rows for which inverted lists were last found not to be worthwhile."""
        self.items_loaded = 0
        """Progress of loading, out of ``gallery.items``."""
        self._live = live
        self._condition = Condition()
        self._missed: list[GalleryChange] | None = None  # changes that a memory under construction has not seen
        self._replacing = Lock()
        self._writers = 0
        self._deleting = self._deleted = False

    @property
    def live(self) -> LiveGallery | None:
        """The memory; None if it cannot be trusted."""
        return self._live

    def ready(self) -> LiveGallery:
        """Return the memory. Raises ``NotReady`` if it cannot be trusted."""
        live = self._live
        if live is None:
            state = "could not be loaded from the store" if self.loaded else "is still being loaded"
            raise NotReady([f"gallery {self.gallery.name} {state}"])
        return live

    def apply(self, change: GalleryChange) -> None:
        """Apply a committed change to the memory. Never raises: a failure invalidates the memory."""
        with self._condition:
            if self._missed is not None:
                self._missed.append(change)
            if self._live is not None:
                try:
                    _apply_next(self._live, change)
                except Exception:
                    _log.exception("gallery %s: memory could not follow the store", self.gallery.name)
                    self._live = None
            self._condition.notify_all()

    @property
    def is_deleted(self) -> bool:
        """Whether the store has deleted the gallery, or another handle has replaced this one."""
        return self._deleted

    def invalidate(self) -> None:
        """Stop trusting the memory."""
        with self._condition:
            self._live = None
            self._condition.notify_all()

    def set_lists(self, live: LiveGallery, expected: InvertedLists | None, lists: InvertedLists | None) -> None:
        """Make ``live`` search with ``lists``, unless it or its ``expected`` lists have been replaced meanwhile."""
        with self._condition:
            if self._live is live and live.view().lists is expected:
                live.set_lists(lists)

    def wait_for_sequence(self, sequence: int, timeout_s: float) -> int:
        """Wait until the memory reaches ``sequence``; return its sequence number then, -1 without memory."""
        with self._condition:
            self._condition.wait_for(lambda: self._live is None or self._live.sequence >= sequence, timeout_s)
            return -1 if self._live is None else self._live.sequence

    def replace(self, build: Callable[[], LiveGallery | None]) -> None:
        """Replace the memory. Writes continue meanwhile; the changes that the new memory missed are applied to it.

        ``build`` returns the gallery as it was at any moment since the call, or None to keep the current memory.
        """
        with self._replacing:
            with self._condition:
                self._missed = []
            try:
                live = build()
                with self._condition:
                    if live is not None:
                        for change in self._missed:
                            if change.sequence > live.sequence:
                                _apply_next(live, change)
                        self._live, self.loaded = live, True
            finally:
                with self._condition:
                    self._missed = None
                    self._condition.notify_all()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Keep the gallery from being deleted during a write. Raises ``GalleryNotFound`` if it has been deleted."""
        with self._condition:
            self._wait_for_deletion()
            self._writers += 1
        try:
            yield
        finally:
            with self._condition:
                self._writers -= 1
                self._condition.notify_all()

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Wait for running writes and hold up others, to delete the gallery or to switch its model."""
        with self._condition:
            self._wait_for_deletion()
            self._deleting = True
            self._condition.wait_for(lambda: not self._writers)
        try:
            yield
        finally:
            with self._condition:
                self._deleting = False
                self._condition.notify_all()

    def mark_deleted(self) -> None:
        """Note that the store has deleted the gallery, or that another handle has replaced this one."""
        with self._condition:
            self._deleted, self._deleting = True, False
            self._condition.notify_all()

    def _wait_for_deletion(self) -> None:
        self._condition.wait_for(lambda: not self._deleting)
        if self._deleted:
            raise GalleryNotFound(self.gallery.name)


class GalleryHandles:
    """The handles of all galleries by name. Refuses access until ``mark_checked`` reports the store as sound.

    ``add`` and ``remove`` are called by the store after its commits, one at a time; readers need no lock, because each
    change replaces the whole dictionary.
    """

    def __init__(self, build_index: BuildIndex, snapshots: SnapshotDirectory | None) -> None:
        self._build_index, self.snapshots = build_index, snapshots
        self.by_name: dict[str, GalleryHandle] = {}
        self._checked = False

    def __iter__(self) -> Iterator[GalleryHandle]:
        return iter(self.by_name.values())

    def open(self, gallery: Gallery, live: LiveGallery | None = None) -> GalleryHandle:
        """Create a handle without adding it."""
        return GalleryHandle(gallery, live, None if self.snapshots is None else self.snapshots.of(gallery))

    def new_index(self, gallery: Gallery) -> VectorIndex:
        """Create an empty index for the gallery's vectors."""
        return self._build_index(gallery.dimension, gallery.vector_type)

    def add(self, handle: GalleryHandle, name: str | None = None) -> None:
        """Make a handle reachable, replacing one of the same name."""
        self.by_name = {**self.by_name, name or handle.gallery.name: handle}

    def remove(self, name: str) -> None:
        """Make a handle unreachable and mark its gallery as deleted."""
        removed = self.by_name[name]
        self.by_name = {other: handle for other, handle in self.by_name.items() if other != name}
        removed.mark_deleted()

    def find(self, name: str) -> GalleryHandle:
        """Return a handle. Raises ``GalleryNotFound``, or ``NotReady`` while it is loaded or the store is checked."""
        handle = self.by_name.get(name)
        if handle is None:
            raise GalleryNotFound(name)
        self.require_checked()
        if not handle.loaded:
            handle.ready()
        return handle

    def mark_checked(self) -> None:
        """Note that the store has been found sound."""
        self._checked = True

    def require_checked(self) -> None:
        """Raise ``NotReady`` until the store has been checked."""
        if not self._checked:
            raise NotReady(["the store is still being checked"])


def _apply_next(live: LiveGallery, change: GalleryChange) -> None:
    if change.sequence != live.sequence + 1:
        raise RuntimeError(f"change {change.sequence} of the store came after change {live.sequence}")
    live.apply(change)
