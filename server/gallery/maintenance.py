"""Maintenance of galleries: compaction, snapshots, inverted lists and retention, and the threads that run them."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError
from datetime import UTC, datetime, timedelta
from functools import partial
from threading import Event, Thread, get_native_id
from time import monotonic

from server.domain.errors import GalleryNotFound, NotReady
from server.gallery.columns import GalleryView
from server.gallery.erasure import ItemErasure
from server.gallery.handle import GalleryHandle, GalleryHandles
from server.gallery.live_gallery import LiveGallery
from server.gallery.retention_clock import RetentionClock
from server.index.ivf_builder import ShouldStop, build_inverted_lists
from server.storage.audit_log import AuditLog

__all__ = ["MAINTENANCE_INTERVAL_S", "BackgroundTask", "GalleryMaintenance", "start_maintenance", "start_retention"]

MAINTENANCE_INTERVAL_S = 10.0
"""Seconds between two runs of maintenance."""
RETENTION_INTERVAL_S = 600.0
"""Seconds between two runs of retention: an item outlives its retention by at most that long."""

_LOADING_RETRY_S = 1.0
"""Seconds between two attempts while galleries are being loaded."""
_MAX_DEAD_SHARE = 0.2
"""A gallery with a larger share of dead rows is compacted."""
_MAX_CHANGED_SHARE = 0.1
"""A snapshot that lacks a larger share of the gallery is written again."""
_SNAPSHOT_PAUSE_S = 300.0
"""Seconds between two snapshots of a gallery that keeps changing; the last one is written at shutdown."""
_MAX_UNLISTED_SHARE = 0.2
"""A gallery with a larger share of rows in none of its inverted lists gets new lists."""

_STAYS_EXACT = "inverted lists would miss too much or save too little, it is searched exactly"

_log = logging.getLogger(__name__)


class GalleryMaintenance:
    """Compacts galleries, writes their snapshots and builds inverted lists. Searches and writes continue meanwhile."""

    def __init__(self, handles: GalleryHandles, approximate_above: int | None) -> None:
        self._handles, self._approximate_above = handles, approximate_above

    def run(self) -> None:
        """Compact galleries with many dead rows, and write snapshots of those that have changed much.

        Deleted rows leave the inverted lists too.
        """
        for handle in tuple(self._handles):
            if handle.live is not None:
                _clean_lists(handle, handle.live)
            if handle.live is not None and handle.live.dead_share > _MAX_DEAD_SHARE:
                self._compact(handle)
                handle.next_snapshot_at = 0.0  # compaction has moved its rows
            if self._missing_share(handle) > _MAX_CHANGED_SHARE and monotonic() >= handle.next_snapshot_at:
                _write_snapshot(handle)
                handle.next_snapshot_at = monotonic() + _SNAPSHOT_PAUSE_S

    def build_lists(self, should_stop: ShouldStop = lambda: False) -> None:
        """Build the inverted lists of large galleries, again for those that have grown much since.

        Ends early when ``should_stop`` returns True.
        """
        for handle in tuple(self._handles):
            if handle.live is None or self._approximate_above is None:
                continue
            try:
                _renew_lists(handle, handle.live, self._approximate_above, should_stop)
            except CancelledError:
                return
            except Exception:
                _log.exception("gallery %s: inverted lists could not be built", handle.gallery.name)

    def recalls(self) -> Mapping[str, float | None]:
        """Return the measured recall of each gallery's inverted lists; None for a gallery that is searched exactly."""
        lists = {name: handle.live and handle.live.view().lists for name, handle in self._handles.by_name.items()}
        return {name: found.recall if found else None for name, found in lists.items()}

    def write_outdated_snapshots(self) -> None:
        """Write each snapshot that lacks any change."""
        for handle in self._handles:
            if self._missing_share(handle) > 0:
                _write_snapshot(handle)

    def _compact(self, handle: GalleryHandle) -> None:
        try:
            handle.replace(lambda: handle.ready().compacted(partial(self._handles.new_index, handle.gallery)))
        except Exception:
            _log.exception("gallery %s could not be compacted", handle.gallery.name)

    def _missing_share(self, handle: GalleryHandle) -> float:
        """Return the share of the gallery that its snapshot lacks; 0 for a gallery that needs no snapshot."""
        if self._handles.snapshots is None or handle.snapshot is None or handle.live is None:
            return 0.0
        view = handle.live.view()
        return handle.snapshot.missing_share(view) if len(view.alive) >= self._handles.snapshots.least else 0.0


class BackgroundTask:
    """A thread that repeats ``work`` every ``interval_s`` seconds. A failure is logged, and repeated at the next turn.

    ``work`` gets a function that tells whether it should stop early.
    """

    def __init__(
        self, name: str, work: Callable[[ShouldStop], None], interval_s: float, *, first_after_s: float | None = None
    ) -> None:
        self._name, self._work, self._interval_s = name, work, interval_s
        self._stopped = Event()
        self._thread = Thread(
            target=self._run, args=(interval_s if first_after_s is None else first_after_s,), name=name, daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop, and wait for a run that is under way."""
        self._stopped.set()
        self._thread.join()

    def _run(self, pause_s: float) -> None:
        while not self._stopped.wait(pause_s):
            pause_s = self._interval_s
            try:
                self._work(self._stopped.is_set)
            except NotReady:
                pause_s = min(pause_s, _LOADING_RETRY_S)
            except Exception:
                _log.exception("%s failed and will be repeated", self._name)


def start_maintenance(
    maintenance: GalleryMaintenance, interval_s: float = MAINTENANCE_INTERVAL_S
) -> tuple[BackgroundTask, BackgroundTask]:
    """Run maintenance in one thread, and build inverted lists, which takes long, in another one."""
    return (
        BackgroundTask("maintenance", lambda _: maintenance.run(), interval_s),
        BackgroundTask("inverted lists", partial(_build_lists_at_low_priority, maintenance), interval_s),
    )


def start_retention(
    erasure: ItemErasure,
    audit: AuditLog,
    interval_s: float = RETENTION_INTERVAL_S,
    *,
    audit_days: int | None = None,
    clock: RetentionClock | None = None,
) -> BackgroundTask:
    """Delete expired items at once and then regularly, and record each deletion in the audit log.

    Audit entries are deleted after ``audit_days``, if that is set. Nothing is deleted while ``clock`` has a problem.
    """
    work = partial(_expire, erasure, audit, audit_days, clock or RetentionClock(audit))
    return BackgroundTask("retention", lambda _: work(), interval_s, first_after_s=0)


def _expire(erasure: ItemErasure, audit: AuditLog, audit_days: int | None, clock: RetentionClock) -> None:
    if clock.problem() is not None:
        return
    for name, count in erasure.expire(datetime.now(UTC)).items():
        _log.info("retention: %d items of gallery %s deleted", count, name)
        audit.record(None, "items.expire", name, {"deleted": count})
    if audit_days is not None:
        audit.prune(datetime.now(UTC) - timedelta(days=audit_days))


def _build_lists_at_low_priority(maintenance: GalleryMaintenance, should_stop: ShouldStop) -> None:
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, get_native_id(), 19)  # of this thread only
    maintenance.build_lists(should_stop)


def _write_snapshot(handle: GalleryHandle) -> None:
    try:
        if handle.snapshot:
            handle.snapshot.write(partial(_view_for_snapshot, handle))
    except Exception:
        _log.exception("gallery %s: its snapshot could not be written", handle.gallery.name)


def _view_for_snapshot(handle: GalleryHandle) -> GalleryView:
    """Return the current view. Raises ``GalleryNotFound`` for a deleted gallery, which must leave no trace."""
    if handle.is_deleted:
        raise GalleryNotFound(handle.gallery.name)
    return handle.ready().view()


def _clean_lists(handle: GalleryHandle, live: LiveGallery) -> None:
    view = live.view()
    if view.lists is not None:
        handle.set_lists(live, view.lists, view.lists.without_dead(view.index, view.alive))


def _renew_lists(handle: GalleryHandle, live: LiveGallery, above: int, should_stop: ShouldStop) -> None:
    """Build the lists of a gallery that has none, or none for enough of its rows; drop those of a small one."""
    view = live.view()
    rows, listed = len(view.alive), 0 if view.lists is None else view.lists.size
    if int(view.alive.sum()) <= above:
        handle.set_lists(live, view.lists, None)
    elif rows - listed > _MAX_UNLISTED_SHARE * rows and rows > 2 * handle.rows_without_useful_lists:
        lists = build_inverted_lists(view.index, view.modality, view.alive, should_stop)
        handle.rows_without_useful_lists = rows if lists is None else 0
        handle.set_lists(live, live.view().lists, lists)
        _log.info("gallery %s, %d rows: %s", handle.gallery.name, rows, _STAYS_EXACT if lists is None else lists.depths)
