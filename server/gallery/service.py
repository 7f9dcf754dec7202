"""The galleries: every write to the store first, then to memory; every search in memory."""

from __future__ import annotations

import builtins
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from threading import Lock

import numpy as np

from server.errors import GalleryNotFound, ModelMismatch, NotReady
from server.gallery.index import VectorIndex, check_filter
from server.gallery.live import LiveGallery
from server.gallery.search import Ranking, fuse, rank, rank_groups
from server.gallery.store import Store
from server.gallery.types import (
    Filter,
    Fusion,
    Gallery,
    Group,
    Hit,
    Item,
    NewItem,
    SearchResult,
    Vectors,
    WriteStatus,
)

__all__ = ["UNIT_TOLERANCE", "Galleries"]

_log = logging.getLogger(__name__)

UNIT_TOLERANCE = 1e-3
"""By how much the norm of a vector may differ from 1."""

_DEAD_SHARE = 0.2
"""Share of dead rows above which a gallery is loaded anew."""

_WRITER_PATIENCE_S = 1.0


class _Opened:
    """A gallery and its memory. ``lock`` lets one writer in; ``live`` is None while memory cannot be trusted."""

    def __init__(self, gallery: Gallery, live: LiveGallery) -> None:
        self.gallery = gallery
        self.lock = Lock()
        self.live: LiveGallery | None = live

    def ready(self) -> LiveGallery:
        if self.live is None:
            raise NotReady([f"gallery {self.gallery.name} could not be loaded from the store"])
        return self.live


class Galleries:
    """All galleries of a server. Thread-safe.

    A write returns when the store has it on the disk and searches see it. A search sees each write whole or not at
    all, and never waits for one. Loads every gallery from the store at construction.

    Raises:
        FilterIgnored: ``build_index`` makes an index that does not filter as it must.
        DatabaseDamaged: the store does not hold what was written.
    """

    def __init__(self, store: Store, build_index: Callable[[int], VectorIndex]) -> None:
        check_filter(build_index)
        self._store = store
        self._build_index = build_index
        self._lock = Lock()  # of the dictionary; never waits for the lock of a gallery
        self._opened = {gallery.name: _Opened(gallery, self._load(gallery)) for gallery in store.galleries()}

    def create(
        self,
        name: str,
        *,
        model: str,
        fingerprint: str,
        dimension: int,
        retention_days: int | None = None,
        description: str | None = None,
    ) -> Gallery:
        """Make an empty gallery for vectors of one model. Raises ``GalleryExists``."""
        gallery = Gallery(
            name=name,
            model=model,
            fingerprint=fingerprint,
            dimension=dimension,
            created_at=datetime.now(UTC),
            items=0,
            description=description,
            retention_days=retention_days,
        )
        opened = _Opened(gallery, LiveGallery(self._build_index(dimension)))
        with self._lock:
            self._store.create_gallery(gallery)
            self._opened[name] = opened
        return gallery

    def get(self, name: str) -> Gallery:
        """One gallery. Raises ``GalleryNotFound``, as every method below."""
        return self._store.gallery(name)

    def list(self, *, limit: int, after: str | None = None) -> builtins.list[Gallery]:
        """At most ``limit`` galleries by name, those that come after ``after``."""
        return self._store.galleries(limit=limit, after=after)

    def update(self, name: str, changes: Mapping[str, object]) -> Gallery:
        """Set ``retention_days`` or ``description``. Raises ValueError for anything else."""
        return self._store.update_gallery(name, changes)

    def delete(self, name: str) -> None:
        """Remove a gallery with all its items, vectors and thumbnails."""
        opened = self._find(name)
        with self._writing(opened):
            self._store.delete_gallery(name)
            self._forget(opened)

    def put(self, name: str, items: Sequence[NewItem], *, fingerprint: str) -> builtins.list[WriteStatus]:
        """Store all items or none; one whose id is there (or came earlier in ``items``) is replaced whole.

        Raises:
            ModelMismatch: the gallery is bound to another fingerprint or dimension.
            ValueError: a vector is not finite or not of unit length, or a time has no time zone.
            StorageFull: no room on the disk.
        """
        opened = self._find(name)
        vectors = _unit_vectors(opened.gallery, fingerprint, [new.vector for new in items])
        if not items:
            return []
        with self._writing(opened) as live:
            statuses, sequence = self._store.put(name, items)
            live.put([new.item for new in items], vectors, sequence)
        return statuses

    def item(self, name: str, id: str) -> Item:
        """One item. Raises ``ItemNotFound``, as every method below that names an item."""
        return self._store.item(name, id)

    def items(self, name: str, where: Filter, *, limit: int, after: str | None = None) -> builtins.list[Item]:
        """At most ``limit`` items that pass ``where``, by id, those that come after ``after``."""
        return self._store.items(name, where, limit=limit, after=after)

    def update_item(self, name: str, id: str, changes: Mapping[str, object]) -> Item:
        """Set ``identity``, ``camera``, ``captured_at`` or ``attributes``. Raises ValueError for anything else."""
        with self._writing(self._find(name)) as live:
            item, sequence = self._store.update_item(name, id, changes)
            live.update(item, sequence)
        return item

    def delete_item(self, name: str, id: str) -> None:
        """Remove an item with its vector and thumbnail."""
        with self._writing(self._find(name)) as live:
            sequence = self._store.delete_item(name, id)
            live.delete([id], sequence)

    def delete_items(self, name: str, where: Filter) -> int:
        """Remove all items that pass ``where``; returns how many there were."""
        return self._delete(name, lambda: self._store.delete_items(name, where))

    def expire(self, now: datetime) -> dict[str, int]:
        """Remove what galleries have held for more than their ``retention_days``; returns how many, by gallery."""
        due = {g.name: now - timedelta(days=g.retention_days) for g in self._store.galleries() if g.retention_days}
        removed = {}
        for name, moment in due.items():
            with suppress(GalleryNotFound):  # deleted since
                removed[name] = self._delete(name, partial(self._store.delete_stored_before, name, moment))
        return {name: count for name, count in removed.items() if count}

    def thumbnail(self, name: str, id: str) -> bytes:
        """An item's thumbnail. ``ItemNotFound`` also when it has none."""
        return self._store.thumbnail(name, id)

    def vector(self, name: str, id: str) -> tuple[Item, Vectors]:
        """An item and its vector, float32 ``[dimension]``."""
        return self._store.vector(name, id)

    def search(
        self,
        name: str,
        queries: Vectors,
        *,
        fingerprint: str,
        k: int,
        where: Filter,
        fusion: Fusion,
        group: bool,
        min_score: float | None,
        exclude: str | None = None,
    ) -> SearchResult:
        """The ``k`` items nearest to one person, seen in the query vectors ``[q, dimension]``, q ≥ 1.

        ``exclude`` is the id of an item that does not count. ``hits`` are the same with and without ``group``, which
        adds the ``k`` best identities, each with all its items that pass.

        Raises:
            ModelMismatch: the gallery is bound to another fingerprint or dimension.
            ValueError: k < 1, no query, or a query vector is not finite or not of unit length.
            NotReady: memory is not in step with the store.
        """
        if k < 1:
            raise ValueError(f"expected k ≥ 1, found {k}")
        opened = self._find(name)
        queries = _unit_vectors(opened.gallery, fingerprint, queries)
        if not len(queries):
            raise ValueError("expected at least one query vector, found none")
        view, excluded = opened.ready().view_and_row(exclude)
        allowed = view.allowed(where)
        if excluded is not None:
            allowed[excluded] = False
        queries = fuse(queries, fusion)
        floor = -np.inf if min_score is None else min_score

        def hits(ranking: Ranking) -> tuple[Hit, ...]:
            pairs = zip(ranking.rows.tolist(), ranking.scores.tolist(), strict=True)
            return tuple(Hit(view.item(row), score) for row, score in pairs)

        searched = int(allowed.sum())
        if not group:
            return SearchResult(searched, hits(rank(view.index, view.ids, queries, allowed, k, floor)))
        best, members = rank_groups(view.index, view.ids, view.identity, queries, allowed, k, floor)
        groups = tuple(Group(h[0].item.identity, h[0].score, h) for h in map(hits, members))
        return SearchResult(searched, hits(best), groups)

    def progress(self) -> Mapping[str, tuple[int, int]]:
        """Sequence number of each gallery in the store and in memory; -1 where memory cannot be trusted.

        They differ only when something is wrong, or while a writer works for longer than a second.
        """
        in_store = self._store.sequences()
        return {name: self._progress(name, sequence) for name, sequence in in_store.items()}

    def close(self) -> None:
        """Let go of the store."""
        self._store.close()

    def _progress(self, name: str, in_store: int) -> tuple[int, int]:
        opened = self._opened.get(name)
        if opened is None or opened.live is None:
            return in_store, -1
        if opened.live.sequence == in_store:
            return in_store, in_store
        # Perhaps a write is between the store and memory: look again when it is through.
        if opened.lock.acquire(timeout=_WRITER_PATIENCE_S):
            opened.lock.release()
        in_store = self._store.sequences().get(name, in_store)
        return in_store, -1 if opened.live is None else opened.live.sequence

    def _delete(self, name: str, remove: Callable[[], tuple[builtins.list[str], int]]) -> int:
        with self._writing(self._find(name)) as live:
            ids, sequence = remove()
            if ids:
                live.delete(ids, sequence)
        return len(ids)

    def _find(self, name: str) -> _Opened:
        opened = self._opened.get(name)
        if opened is None:
            raise GalleryNotFound(name)
        return opened

    def _forget(self, opened: _Opened) -> None:
        name = opened.gallery.name
        with self._lock:
            if self._opened.get(name) is opened:  # another one of that name may be there by now
                del self._opened[name]

    @contextmanager
    def _writing(self, opened: _Opened) -> Iterator[LiveGallery]:
        """The memory of a gallery for its one writer, who leaves it in step with the store whatever happens."""
        with opened.lock:
            if self._opened.get(opened.gallery.name) is not opened:  # deleted while this writer waited
                raise GalleryNotFound(opened.gallery.name)
            if opened.live is None:
                self._reload(opened)
            live = opened.ready()
            try:
                yield live
            except BaseException:
                self._catch_up(opened, live)
                raise
            if live.dead_share > _DEAD_SHARE:
                self._reload(opened)

    def _catch_up(self, opened: _Opened, live: LiveGallery) -> None:
        """After a failed write: nothing to do if the store refused or rolled back, else memory is made anew."""
        try:
            in_store = self._store.sequences().get(opened.gallery.name)
        except Exception:
            _log.exception("gallery %s: the store does not answer, searches stop", opened.gallery.name)
            opened.live = None
            return
        if in_store is None:
            self._forget(opened)
        elif in_store != live.sequence:
            opened.live = None
            self._reload(opened)

    def _reload(self, opened: _Opened) -> None:
        """Load anew. A failure is logged, not raised: the write that led here is stored and its answer stands."""
        if self._opened.get(opened.gallery.name) is not opened:
            return
        try:
            opened.live = self._load(opened.gallery)
        except Exception:
            _log.exception("gallery %s could not be loaded from the store", opened.gallery.name)

    def _load(self, gallery: Gallery) -> LiveGallery:
        live = LiveGallery(self._build_index(gallery.dimension))
        with self._store.load(gallery.name) as (sequence, chunks):
            for chunk in chunks:
                live.put(chunk.items, chunk.vectors, sequence)
            live.put([], np.empty((0, gallery.dimension), np.float32), sequence)
        return live


def _unit_vectors(gallery: Gallery, fingerprint: str, vectors: Sequence[Vectors] | Vectors) -> Vectors:
    """The vectors as float32 ``[n, dimension]``, if they are this gallery's kind."""
    if fingerprint != gallery.fingerprint:
        raise ModelMismatch(gallery.name, gallery.fingerprint, fingerprint)
    for vector in vectors:
        if np.shape(vector) != (gallery.dimension,):
            found = "×".join(map(str, np.shape(vector)))
            raise ModelMismatch(gallery.name, f"dimension {gallery.dimension}", f"dimension {found}")
    stacked = np.array(vectors, np.float32).reshape(len(vectors), gallery.dimension)
    norms = np.linalg.norm(stacked.astype(np.float64), axis=1)
    for index in np.flatnonzero(~(np.abs(norms - 1) <= UNIT_TOLERANCE)):
        raise ValueError(f"vector {index} has norm {norms[index]:.6g}, expected 1 within {UNIT_TOLERANCE:g}")
    return stacked
