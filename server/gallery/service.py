"""The galleries: every write to the store first, then to memory; every search in memory."""

from __future__ import annotations

import builtins
import ctypes
import hashlib
import logging
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from threading import Lock, Thread
from time import monotonic
from typing import TypeVar

import numpy as np

from server.errors import GalleryNotFound, ItemNotFound, ModelMismatch, NotReady, ThumbnailsMissing
from server.gallery.answers import answers
from server.gallery.columns import View
from server.gallery.duplicates import Pair, PairPlace, Pairs, find_pairs
from server.gallery.index import BuildIndex, VectorIndex, check_filter
from server.gallery.listmaking import Stopped, make_lists
from server.gallery.live import LiveGallery
from server.gallery.opened import Opened
from server.gallery.protocol import Deleted, Loaded, Put, Store
from server.gallery.snapshots import Snapshots
from server.gallery.types import (
    Erasure,
    Filter,
    Gallery,
    Item,
    NewItem,
    Search,
    SearchResult,
    Vectors,
    VectorType,
    WriteStatus,
)

__all__ = ["UNIT_TOLERANCE", "Galleries"]

T = TypeVar("T")

_log = logging.getLogger(__name__)

UNIT_TOLERANCE = 1e-3
"""By how much the norm of a vector may differ from 1."""

_DEAD_SHARE = 0.2
"""Share of dead rows above which a gallery is compacted."""

_CHANGED_SHARE = 0.1
"""Share of a gallery that may be missing in its snapshot before it is written again."""

_SNAPSHOT_REST_S = 300.0
"""Time between two snapshots of a gallery that keeps changing; a last one is written at the end."""

_TAIL_SHARE = 0.2
"""Share of a gallery that may be in none of its inverted lists before they are made anew."""

_EXACT_STAYS = "inverted lists would miss too much or save too little, it is searched exactly"

_WRITER_PATIENCE_S = 1.0


class Galleries:
    """All galleries of a server. Thread-safe.

    A write returns when the store has it on the disk and searches see it. A search sees each write whole or not at
    all, and never waits for one.

    Every gallery is loaded from its snapshot, if there is a sound one, and from the store; the smallest first. That
    happens at construction, or beside it ``in_background``: until a gallery is loaded and the store is checked every
    method that names it raises ``NotReady``. ``loading`` is done when all are; its exception, one of those below, means
    that nothing more may be served.

    Above so many items (``approximate_above``) a gallery gets inverted lists, if ``make_lists`` is called now and then.

    Raises:
        FilterIgnored: ``build_index`` makes an index that does not filter as it must.
        DatabaseDamaged: the store does not hold what was written.
    """

    def __init__(
        self,
        store: Store,
        build_index: BuildIndex,
        snapshots: Snapshots | None = None,
        *,
        approximate_above: int | None = None,
        in_background: bool = False,
    ) -> None:
        check_filter(build_index)
        self._store = store
        self._build_index = build_index
        self._snapshots, self._approximate_above = snapshots, approximate_above
        # Replaced by what the store calls after a commit, never twice at a time.
        self._opened = {gallery.name: self._open(gallery) for gallery in store.galleries()}
        self._aliases_lock = Lock()
        self._read_aliases()
        self._checked = self._closing = False
        self.loading: Future[None] = Future()
        if in_background:
            Thread(target=self._load_all, name="load", daemon=True).start()
        else:
            self._load_all()
            self.loading.result()

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
        """Make an empty gallery for vectors of one model. Raises ``GalleryExists``, ``AliasExists``."""
        self._require_checked()
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
        opened = self._open(gallery, LiveGallery(self._build_index(dimension, vector_type)))

        def then() -> None:
            self._opened = {**self._opened, name: opened}

        self._store.create_gallery(gallery, then)
        return gallery

    def get(self, name: str) -> Gallery:
        """One gallery. Raises ``GalleryNotFound``, as every method below."""
        self._find(name)
        return self._store.gallery(name)

    def bound(self, name: str) -> Gallery:
        """What never changes of a gallery, from memory: its model above all. The rest of it may have changed since."""
        return self._find(name).gallery

    def list(self, *, limit: int, after: str | None = None) -> builtins.list[Gallery]:
        """At most ``limit`` galleries by name, those that come after ``after``."""
        self._require_checked()
        return self._store.galleries(limit=limit, after=after)

    def update(self, name: str, changes: Mapping[str, object]) -> Gallery:
        """Set ``retention_days`` or ``description``. Raises ValueError for anything else."""
        self._find(name)
        return self._store.update_gallery(name, changes)

    def delete(self, name: str) -> None:
        """Remove a gallery with all its items, vectors and thumbnails, and its aliases."""
        opened = self._find(name)

        def then() -> None:
            self._opened = {other: one for other, one in self._opened.items() if other != name}
            opened.gone()

        try:
            with opened.deleting():
                self._store.delete_gallery(name, then)
        finally:
            self._read_aliases()
            if opened.snapshot and self._opened.get(name) is not opened:
                opened.snapshot.destroy()

    def dump(self, name: str) -> AbstractContextManager[tuple[Gallery, Iterator[NewItem]]]:
        """A gallery and all its items, both of one moment; see ``Store.dump``."""
        self._find(name)
        return self._store.dump(name)

    def require_thumbnails(self, name: str) -> None:
        """Raise ``ThumbnailsMissing`` where an item has none."""
        self._find(name)
        if missing := self._store.without_thumbnail(name):
            raise ThumbnailsMissing(name, missing)

    def publish(self, draft: str, name: str) -> None:
        """Make a gallery out of a draft of the store, whole and at once. Raises ``GalleryExists``, ``AliasExists``."""
        self._require_checked()
        gallery = replace(self._store.gallery(draft), name=name)
        live = LiveGallery(self._new_index(gallery))
        with self._store.load(draft) as loaded:
            _fill(live, loaded)
        opened = self._open(gallery, live)
        self._store.rename_gallery(draft, name, lambda: self._opened.update({name: opened}))

    def switch(self, name: str, finish: Callable[[], None]) -> None:
        """Bind a gallery to the other model of its renewal, at once: a search sees the old vectors or the new ones.

        Writes wait while ``finish`` sees to the last items, and until the new vectors are in memory; searches go on.
        """
        old = self._find(name)
        with old.deleting():
            finish()
            renewal = self._store.renewals()[name]
            gallery = replace(
                old.gallery, model=renewal.model, fingerprint=renewal.fingerprint, dimension=renewal.dimension
            )
            live = LiveGallery(self._new_index(gallery))
            with self._store.load(name, renewed=True) as loaded:
                _fill(live, loaded)
            opened = self._open(gallery, live)

            def then() -> None:
                self._opened[name] = opened
                old.gone()

            self._store.switch_renewal(name, then)
        if old.snapshot:
            old.snapshot.destroy()

    def resolve(self, name: str) -> str:
        """What a name stands for: the gallery it is an alias of, else itself, whether or not there is one."""
        return self._aliases.get(name, name)

    def aliases(self) -> dict[str, str]:
        """The gallery of each alias."""
        return dict(self._aliases)

    def set_alias(self, alias: str, name: str) -> None:
        """Have ``alias`` stand for a gallery, from now on if it stood for another. Raises ``GalleryExists``."""
        self._find(name)
        self._store.set_alias(alias, name)
        self._read_aliases()

    def remove_alias(self, alias: str) -> None:
        """Take an alias away. Raises ``AliasNotFound``."""
        self._require_checked()
        self._store.remove_alias(alias)
        self._read_aliases()

    def put(self, name: str, items: Sequence[NewItem], *, fingerprint: str) -> builtins.list[WriteStatus]:
        """Store all items or none; one whose id is there (or came earlier in ``items``) is replaced whole.

        Raises:
            ModelMismatch: the gallery is bound to another fingerprint or dimension.
            ValueError: a vector is not finite or not of unit length, or a time has no time zone.
            StorageFull: no room on the disk.
        """

        def put(opened: Opened) -> builtins.list[WriteStatus]:
            vectors = _unit_vectors(opened.gallery, fingerprint, [new.vector for new in items])
            if not items:
                return []
            kept = items if opened.gallery.thumbnails else [replace(new, thumbnail=None) for new in items]

            def then(done: Put) -> None:
                facts = [new.item for new in kept]
                opened.apply(done.sequence, lambda live: live.put(facts, done.rows, vectors, done.sequence))

            with self._writing(opened):
                return self._store.put(name, kept, then).statuses

        return self._write(name, put)

    def item(self, name: str, id: str) -> Item:
        """One item. Raises ``ItemNotFound``, as every method below that names an item."""
        self._find(name)
        return self._store.item(name, id)

    def items(self, name: str, where: Filter, *, limit: int, after: str | None = None) -> builtins.list[Item]:
        """At most ``limit`` items that pass ``where``, by id, those that come after ``after``."""
        self._find(name)
        return self._store.items(name, where, limit=limit, after=after)

    def update_item(self, name: str, id: str, changes: Mapping[str, object]) -> Item:
        """Set ``identity``, ``camera``, ``captured_at`` or ``attributes``. Raises ValueError for anything else."""

        def update(opened: Opened) -> Item:
            def then(item: Item, sequence: int) -> None:
                opened.apply(sequence, lambda live: live.update(item, sequence))

            with self._writing(opened):
                item, _ = self._store.update_item(name, id, changes, then)
            return item

        return self._write(name, update)

    def delete_item(self, name: str, id: str) -> None:
        """Remove an item with its vector and thumbnail."""
        self._delete(name, partial(self._store.delete_item, name, id))

    def erase(self, name: str, where: Filter, key_id: str | None = None, *, jobs: int = 0) -> Erasure:
        """Remove all items that pass ``where``, look whether anything of them is left here, and keep a receipt.

        The receipt's detail says what was removed, and under ``left`` how much the store, the memory that searches see
        and the snapshots of it still hold (0 each), whether the store's log still has it (False), and ``jobs``: how
        many of this gallery are under way and may hold such items, or bring them.
        """
        done = self._deleted(name, partial(self._store.delete_items, name, where))
        opened = self._find(name)
        view = opened.ready().view()
        left = {
            "store": self._store.left_of(name, done.ids),
            "memory": sum(view.row_of(id) is not None for id in done.ids),
            "snapshot": 0 if opened.snapshot is None else opened.snapshot.left(view),
            "log": not self._store.scrub(),
            "jobs": jobs,
        }
        receipt = Erasure(
            id=uuid.uuid4().hex,
            gallery=name,
            at=datetime.now(UTC),
            key_id=key_id,
            detail={
                "items": len(done.ids),
                "vectors": done.vectors,
                "thumbnails": done.thumbnails,
                "ids_sha256": hashlib.sha256("\n".join(done.ids).encode()).hexdigest(),
                "left": left,
            },
        )
        self._store.record_erasure(receipt)
        return receipt

    def erasure(self, id: str) -> Erasure:
        """One receipt, whose gallery may be gone. Raises ``ErasureNotFound``."""
        self._require_checked()
        return self._store.erasure(id)

    def erasures(
        self, *, limit: int, after: str | None = None, galleries: Collection[str] | None = None
    ) -> builtins.list[Erasure]:
        """At most ``limit`` receipts, newest first; see ``Store.erasures``."""
        self._require_checked()
        return self._store.erasures(limit=limit, after=after, galleries=galleries)

    def expire(self, now: datetime) -> dict[str, int]:
        """Remove what galleries have held for more than their ``retention_days``; returns how many, by gallery."""
        self._require_checked()
        due = {g.name: now - timedelta(days=g.retention_days) for g in self._store.galleries() if g.retention_days}
        removed = {}
        for name, moment in due.items():
            with suppress(GalleryNotFound):  # deleted since
                removed[name] = self._delete(name, partial(self._store.delete_stored_before, name, moment))
        return {name: count for name, count in removed.items() if count}

    def thumbnail(self, name: str, id: str) -> bytes:
        """An item's thumbnail. ``ItemNotFound`` also when it has none."""
        self._find(name)
        return self._store.thumbnail(name, id)

    def vector(self, name: str, id: str) -> tuple[Item, Vectors]:
        """An item and its vector, float32 ``[dimension]``. ``NotReady`` while the gallery changes its model."""
        opened = self._find(name)
        found = self._store.vector(name, id)
        if self._store.gallery(name).fingerprint != opened.gallery.fingerprint:  # searches still see the old vectors
            raise NotReady([f"gallery {name} is being bound to another model"])
        return found

    def duplicates(
        self, name: str, where: Filter, min_score: float, *, limit: int, start: PairPlace | None = None
    ) -> Pairs:
        """The first pairs from a place on, as ``find_pairs`` gives them, of items that pass ``where``.

        Raises:
            NotReady: memory is not in step with the store.
        """
        found = find_pairs(self._find(name).ready().view(), where, min_score, limit, start)
        ids = {item.id for pair in found.pairs for item in (pair.first, pair.second)}
        contents = self._store.contents(name, sorted(ids))
        return replace(found, pairs=tuple(_compared(pair, contents) for pair in found.pairs))

    def named(self, name: str, ids: Collection[str]) -> dict[str, Item]:
        """Those of the items with these ids that are there."""
        self._find(name)
        return self._store.named(name, ids)

    def search(self, name: str, searches: Sequence[Search], *, fingerprint: str) -> builtins.list[SearchResult]:
        """The answer to each search. Those with the same filter share one pass over the vectors.

        ``hits`` are the same with and without ``group``.

        Raises:
            ModelMismatch: the gallery is bound to another fingerprint or dimension.
            ValueError: a query vector is not finite or not of unit length, or several cancel out.
            NotReady: memory is not in step with the store.
        """
        opened = self._find(name)
        searches = [replace(one, queries=_unit_vectors(opened.gallery, fingerprint, one.queries)) for one in searches]
        return answers(opened.ready().view(), searches)

    def progress(self) -> Mapping[str, tuple[int, int]]:
        """Sequence number of each gallery in the store and in memory; -1 where memory cannot be trusted.

        They differ only when something is wrong, or while a writer works for longer than a second.
        """
        in_store = self._store.sequences()
        return {name: _progress(opened, in_store[name]) for name, opened in self._opened.items() if name in in_store}

    def unloaded(self) -> Mapping[str, tuple[int, int]]:
        """Of each gallery that is still being loaded, how many of its items are, and how many it has."""
        return {
            name: (opened.items_read, opened.gallery.items)
            for name, opened in self._opened.items()
            if not opened.loaded
        }

    def maintain(self) -> None:
        """Compact galleries of which much is dead, and write snapshots of those that have changed much; see ``Upkeep``.

        What was deleted leaves the inverted lists too. Searches and writes go on meanwhile.
        """
        for opened in tuple(self._opened.values()):
            if opened.live is not None:
                _clean_lists(opened, opened.live)
            if opened.live is not None and opened.live.dead_share > _DEAD_SHARE:
                self._compact(opened)
                opened.snapshot_after = 0.0  # its rows are others now
            if self._behind(opened) > _CHANGED_SHARE and monotonic() >= opened.snapshot_after:
                self._write_snapshot(opened)
                opened.snapshot_after = monotonic() + _SNAPSHOT_REST_S

    def make_lists(self, stopped: Stopped = lambda: False) -> None:
        """Give large galleries inverted lists, and those anew that have grown much since; see ``Upkeep``.

        Searches and writes go on meanwhile. It ends early where ``stopped`` says so.
        """
        for opened in tuple(self._opened.values()):
            if opened.live is None or self._approximate_above is None:
                continue
            try:
                _list_anew(opened, opened.live, self._approximate_above, stopped)
            except CancelledError:
                return
            except Exception:
                _log.exception("gallery %s: no inverted lists could be made", opened.gallery.name)

    def recalls(self) -> Mapping[str, float | None]:
        """The measured recall of each gallery that is searched by inverted lists; None of one that is exact."""
        lists = {name: opened.live and opened.live.view().lists for name, opened in self._opened.items()}
        return {name: found.recall if found else None for name, found in lists.items()}

    def close(self) -> None:
        """Write the snapshots that are behind, and let go of the store."""
        self._closing = True
        wait([self.loading])
        for opened in self._opened.values():
            if self._behind(opened) > 0:
                self._write_snapshot(opened)
        self._store.close()

    def _open(self, gallery: Gallery, live: LiveGallery | None = None) -> Opened:
        return Opened(gallery, live, None if self._snapshots is None else self._snapshots.of(gallery))

    def _read_aliases(self) -> None:
        with self._aliases_lock:  # who reads last has read the latest
            self._aliases = self._store.aliases()

    def _require_checked(self) -> None:
        if not self._checked:
            raise NotReady(["the store is still being checked"])

    def _find(self, name: str) -> Opened:
        opened = self._opened.get(name)
        if opened is None:
            raise GalleryNotFound(name)
        self._require_checked()
        if not opened.loaded:
            opened.ready()
        return opened

    def _write(self, name: str, write: Callable[[Opened], T]) -> T:
        """Write to the gallery; again, where another one has taken its place while the write waited."""
        while True:
            opened = self._find(name)
            try:
                return write(opened)
            except GalleryNotFound:
                if self._opened.get(name, opened) is opened:
                    raise

    @contextmanager
    def _writing(self, opened: Opened) -> Iterator[None]:
        """For a write, which leaves memory in step with the store whatever happens."""
        with opened.writing():
            if opened.live is None:
                self._mend(opened)
            opened.ready()
            try:
                yield
            except (GalleryNotFound, ItemNotFound):  # what the store says without having changed anything
                raise
            except BaseException:
                self._catch_up(opened)
                raise
            if opened.live is None:
                self._mend(opened)

    def _delete(self, name: str, remove: Callable[[Callable[[Deleted], None]], Deleted]) -> int:
        return len(self._deleted(name, remove).ids)

    def _deleted(self, name: str, remove: Callable[[Callable[[Deleted], None]], Deleted]) -> Deleted:
        def delete(opened: Opened) -> Deleted:
            def then(done: Deleted) -> None:
                opened.apply(done.sequence, lambda live: live.delete(done.ids, done.sequence))

            with self._writing(opened):
                try:
                    return remove(then)
                finally:
                    if opened.snapshot:
                        opened.snapshot.erase(None if opened.live is None else opened.live.view())

        return self._write(name, delete)

    def _catch_up(self, opened: Opened) -> None:
        """After a failed write: nothing to do if the store refused or rolled back, else memory is made anew."""
        try:
            in_store = self._store.sequences()[opened.gallery.name]
        except Exception:
            _log.exception("gallery %s: the store does not answer, searches stop", opened.gallery.name)
            opened.lose()
            return
        if opened.reached(in_store, _WRITER_PATIENCE_S) < in_store:
            opened.lose()
            self._mend(opened)

    def _mend(self, opened: Opened) -> None:
        """Load anew. A failure is logged, not raised: the write that led here is stored and its answer stands."""

        def make() -> LiveGallery | None:
            return self._load_from_store(opened) if opened.live is None else None  # another writer was here before

        try:
            opened.replace(make)
        except Exception:
            _log.exception("gallery %s could not be loaded from the store", opened.gallery.name)

    def _compact(self, opened: Opened) -> None:
        try:
            opened.replace(lambda: opened.ready().compacted(partial(self._new_index, opened.gallery)))
        except Exception:
            _log.exception("gallery %s could not be compacted", opened.gallery.name)

    def _behind(self, opened: Opened) -> float:
        """Share of the gallery that its snapshot lacks; 0 where there shall be none."""
        if self._snapshots is None or opened.snapshot is None or opened.live is None:
            return 0.0
        view = opened.live.view()
        return opened.snapshot.behind(view) if len(view.alive) >= self._snapshots.least else 0.0

    def _write_snapshot(self, opened: Opened) -> None:
        try:
            if opened.snapshot:
                opened.snapshot.write(partial(_present, opened))
        except Exception:
            _log.exception("gallery %s: its snapshot could not be written", opened.gallery.name)

    def _new_index(self, gallery: Gallery) -> VectorIndex:
        return self._build_index(gallery.dimension, gallery.vector_type)

    def _load_all(self) -> None:
        try:
            if self._snapshots:
                self._snapshots.sweep([opened.gallery for opened in self._opened.values()])
            with ThreadPoolExecutor(1, thread_name_prefix="check") as pool:
                check = pool.submit(self._store.check)
                for opened in sorted(self._opened.values(), key=lambda opened: opened.gallery.items):
                    opened.replace(partial(self._load, opened))
                check.result()
            self._checked = True
            _give_back_memory()
        except BaseException as error:
            self.loading.set_exception(error)
        else:
            self.loading.set_result(None)

    def _load(self, opened: Opened) -> LiveGallery:
        def advance(items: int) -> None:
            opened.items_read += items

        live = opened.snapshot and opened.snapshot.read(partial(self._new_index, opened.gallery), advance)
        if opened.snapshot and live:
            try:
                gone = self._follow(opened, live)
            except ValueError as error:
                _log.warning("gallery %s: its snapshot is not used: %s", opened.gallery.name, error)
            else:
                if gone:
                    opened.snapshot.erase(live.view())
                return live
        return self._load_from_store(opened)

    def _load_from_store(self, opened: Opened) -> LiveGallery:
        opened.items_read = 0
        live = LiveGallery(self._new_index(opened.gallery))
        self._follow(opened, live)
        return live

    def _follow(self, opened: Opened, live: LiveGallery) -> int:
        """Bring memory up to the store; returns how many items were gone.

        Raises:
            ValueError: it is no earlier state of the store.
        """
        with self._store.load(opened.gallery.name, live.sequence) as loaded:
            if live.sequence > loaded.sequence:
                raise ValueError(f"it has seen change {live.sequence}, the store has {loaded.sequence}")
            for chunk in loaded.chunks:
                if self._closing:
                    raise CancelledError
                live.put(chunk.items, chunk.rows, chunk.vectors, loaded.sequence)
                opened.items_read += len(chunk.items)
            return live.keep_only(loaded.rows(), loaded.sequence)


def _clean_lists(opened: Opened, live: LiveGallery) -> None:
    view = live.view()
    if view.lists is not None:
        opened.adopt(live, view.lists, view.lists.without_dead(view.index, view.alive))


def _list_anew(opened: Opened, live: LiveGallery, above: int, stopped: Stopped) -> None:
    """Make the lists that a gallery needs and has not, or not for enough of its rows."""
    view = live.view()
    rows, listed = len(view.alive), 0 if view.lists is None else view.lists.size
    if int(view.alive.sum()) <= above:
        opened.adopt(live, view.lists, None)
    elif rows - listed > _TAIL_SHARE * rows and rows > 2 * opened.unlisted_at:
        lists = make_lists(view, stopped)
        opened.unlisted_at = rows if lists is None else 0
        opened.adopt(live, live.view().lists, lists)
        _log.info("gallery %s, %d rows: %s", opened.gallery.name, rows, _EXACT_STAYS if lists is None else lists.depths)


def _fill(live: LiveGallery, loaded: Loaded) -> None:
    for chunk in loaded.chunks:
        live.put(chunk.items, chunk.rows, chunk.vectors, loaded.sequence)
    live.keep_only(loaded.rows(), loaded.sequence)


def _give_back_memory() -> None:
    """Return to the system what was needed for a while; the C library keeps it for later otherwise, for ever."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc alone has it
    if trim is not None:
        trim(0)


def _present(opened: Opened) -> View:
    """What a snapshot may hold. Raises ``GalleryNotFound`` for what is to leave no trace."""
    if opened.is_gone:
        raise GalleryNotFound(opened.gallery.name)
    return opened.ready().view()


def _progress(opened: Opened, in_store: int) -> tuple[int, int]:
    in_memory = opened.reached(in_store, _WRITER_PATIENCE_S)
    return max(in_store, in_memory), in_memory  # what was written since ``in_store`` was read is in both


def _compared(pair: Pair, contents: Mapping[str, str]) -> Pair:
    content = contents.get(pair.first.id)
    return replace(pair, identical=content is not None and content == contents.get(pair.second.id))


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
