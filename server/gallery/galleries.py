"""All galleries of a server, made of the parts that create, write, search, erase, load and maintain them."""

from __future__ import annotations

from server.gallery.catalog import GalleryCatalog
from server.gallery.erasure import ItemErasure
from server.gallery.handle import GalleryHandles
from server.gallery.loader import GalleryLoader
from server.gallery.maintenance import GalleryMaintenance
from server.gallery.query import GalleryQuery
from server.gallery.snapshots import SnapshotDirectory
from server.gallery.writer import GalleryWriter
from server.index.protocol import BuildIndex, check_filter
from server.storage.protocol import Store

__all__ = ["Galleries"]


class Galleries:
    """All galleries of a server. Thread-safe.

    A write returns when the store has it on disk and searches see it. A search sees each write completely or not at
    all, and never waits for one.

    Galleries are loaded at construction or, with ``in_background``, in a thread: until a gallery is loaded and the
    store is checked, every method that names it raises ``NotReady``.

    Galleries with more than ``approximate_above`` items get inverted lists if ``maintenance.build_lists`` is called
    regularly.

    Raises:
        FilterIgnored: ``build_index`` creates an index that does not filter correctly.
        DatabaseDamaged: the store does not hold what was written.
    """

    def __init__(
        self,
        store: Store,
        build_index: BuildIndex,
        snapshots: SnapshotDirectory | None = None,
        *,
        approximate_above: int | None = None,
        in_background: bool = False,
    ) -> None:
        check_filter(build_index)
        self._store = store
        self.handles = GalleryHandles(build_index, snapshots)
        for gallery in store.galleries():
            self.handles.add(self.handles.open(gallery))
        self.loader = GalleryLoader(self.handles, store)
        self.catalog = GalleryCatalog(self.handles, store)
        self.writer = GalleryWriter(self.handles, store, self.loader)
        self.erasure = ItemErasure(self.handles, store, self.writer)
        self.query = GalleryQuery(self.handles, store)
        self.maintenance = GalleryMaintenance(self.handles, approximate_above)
        self.loader.start(in_background=in_background)

    def close(self) -> None:
        """Write the snapshots that are out of date, and close the store."""
        self.loader.stop()
        self.maintenance.write_outdated_snapshots()
        self._store.close()
