"""A gallery of the store and its memory, which follows it whatever happens."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Condition, Lock

from server.errors import GalleryNotFound, NotReady
from server.gallery.lists import InvertedLists
from server.gallery.live import LiveGallery
from server.gallery.snapshots import Snapshot
from server.gallery.types import Gallery

__all__ = ["Opened"]

_log = logging.getLogger(__name__)

Change = Callable[[LiveGallery], None]


class Opened:
    """One gallery: what never changes of it, and its memory, None until it is loaded and while it cannot be trusted.

    Memory sees every change in the order of the store's sequence numbers: ``apply`` is called in that order, after the
    commit and before the write is answered. A change that is missing or fails takes the memory away until ``replace``
    makes it anew from the store.
    """

    def __init__(self, gallery: Gallery, live: LiveGallery | None = None, snapshot: Snapshot | None = None) -> None:
        self.gallery, self.snapshot = gallery, snapshot
        self.snapshot_after = 0.0
        """When the next one may be written, by the monotonic clock."""
        self.loaded = live is not None
        self.unlisted_at = 0
        """How many rows it had when inverted lists were found not to do for it."""
        self.items_read = 0
        """How far loading has come, of ``gallery.items``."""
        self._live = live
        self._condition = Condition()
        self._missed: list[tuple[int, Change]] | None = None  # by a memory that is being made
        self._making = Lock()
        self._writers = 0
        self._deleting = self._gone = False

    @property
    def live(self) -> LiveGallery | None:
        """The memory, None where it cannot be trusted."""
        return self._live

    def ready(self) -> LiveGallery:
        """The memory. Raises ``NotReady`` where it cannot be trusted."""
        live = self._live
        if live is None:
            state = "could not be loaded from the store" if self.loaded else "is still being loaded"
            raise NotReady([f"gallery {self.gallery.name} {state}"])
        return live

    def apply(self, sequence: int, change: Change) -> None:
        """Let memory see a change that the store has committed as its number ``sequence``. Never raises."""
        with self._condition:
            if self._missed is not None:
                self._missed.append((sequence, change))
            if self._live is not None:
                try:
                    _follow(self._live, sequence, change)
                except Exception:
                    _log.exception("gallery %s: memory could not follow the store", self.gallery.name)
                    self._live = None
            self._condition.notify_all()

    @property
    def is_gone(self) -> bool:
        """Whether the store has deleted it, or another one has taken its place."""
        return self._gone

    def lose(self) -> None:
        """Trust the memory no more."""
        with self._condition:
            self._live = None
            self._condition.notify_all()

    def adopt(self, live: LiveGallery, before: InvertedLists | None, lists: InvertedLists | None) -> None:
        """Have ``live`` search with ``lists``; not where it or its lists, ``before``, have been replaced meanwhile."""
        with self._condition:
            if self._live is live and live.view().lists is before:
                live.adopt(lists)

    def reached(self, sequence: int, timeout_s: float) -> int:
        """The sequence number of memory, -1 without one; waits for it to come up to ``sequence``."""
        with self._condition:
            self._condition.wait_for(lambda: self._live is None or self._live.sequence >= sequence, timeout_s)
            return -1 if self._live is None else self._live.sequence

    def replace(self, make: Callable[[], LiveGallery | None]) -> None:
        """Put another memory in the place of this one. Writes go on meanwhile: it is given what it has missed.

        ``make`` gives the gallery as it was at any moment since it was called, or None to leave things as they are.
        """
        with self._making:
            with self._condition:
                self._missed = []
            try:
                live = make()
                with self._condition:
                    if live is not None:
                        for sequence, change in self._missed:
                            if sequence > live.sequence:
                                _follow(live, sequence, change)
                        self._live, self.loaded = live, True
            finally:
                with self._condition:
                    self._missed = None
                    self._condition.notify_all()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """For a write: the gallery is not deleted meanwhile. Raises ``GalleryNotFound`` when it has been."""
        with self._condition:
            self._condition.wait_for(lambda: not self._deleting)
            if self._gone:
                raise GalleryNotFound(self.gallery.name)
            self._writers += 1
        try:
            yield
        finally:
            with self._condition:
                self._writers -= 1
                self._condition.notify_all()

    @contextmanager
    def deleting(self) -> Iterator[None]:
        """For the deletion of the gallery: waits for those who write, and holds up others until it is left."""
        with self._condition:
            self._condition.wait_for(lambda: not self._deleting)
            if self._gone:
                raise GalleryNotFound(self.gallery.name)
            self._deleting = True
            self._condition.wait_for(lambda: not self._writers)
        try:
            yield
        finally:
            with self._condition:
                self._deleting = False
                self._condition.notify_all()

    def gone(self) -> None:
        """The store has deleted it, or another one has taken its place."""
        with self._condition:
            self._gone, self._deleting = True, False
            self._condition.notify_all()


def _follow(live: LiveGallery, sequence: int, change: Change) -> None:
    if sequence != live.sequence + 1:
        raise RuntimeError(f"change {sequence} of the store came after change {live.sequence}")
    change(live)
