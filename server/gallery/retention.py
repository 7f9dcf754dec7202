"""Enforces the retention days of every gallery, as long as the server runs."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from threading import Event, Thread

from server.audit import Audit
from server.errors import NotReady
from server.gallery.service import Galleries

__all__ = ["INTERVAL_S", "Retention"]

INTERVAL_S = 600.0
"""Seconds between two sweeps: an item is gone at most that long after its time."""

_LOADING_S = 1.0
"""Seconds until it is tried again while galleries are being loaded."""

log = logging.getLogger(__name__)


class Retention:
    """A thread that deletes what is due at once and then every ``interval_s`` seconds, and records it in the audit.

    A sweep that fails (a full disk) is logged, and repeated at the next turn.
    """

    def __init__(self, galleries: Galleries, audit: Audit, interval_s: float = INTERVAL_S) -> None:
        self._galleries, self._audit, self._interval_s = galleries, audit, interval_s
        self._stopped = Event()
        self._thread = Thread(target=self._run, name="retention", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop; a sweep under way is waited for."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            pause_s = self._interval_s
            try:
                self._sweep()
            except NotReady:
                pause_s = _LOADING_S
            except Exception:
                log.exception("retention: a sweep failed and will be repeated")
            if self._stopped.wait(pause_s):
                return

    def _sweep(self) -> None:
        for name, count in self._galleries.expire(datetime.now(UTC)).items():
            log.info("retention: %d items of gallery %s deleted", count, name)
            self._audit.record(None, "items.expire", name, {"deleted": count})
