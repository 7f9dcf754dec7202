"""Looks after the memory of the galleries and its snapshots, as long as the server runs."""

from __future__ import annotations

import logging
from threading import Event, Thread

from server.gallery.service import Galleries

__all__ = ["INTERVAL_S", "Upkeep"]

INTERVAL_S = 10.0
"""Seconds between two looks."""

_log = logging.getLogger(__name__)


class Upkeep:
    """A thread that calls ``Galleries.maintain`` every ``interval_s`` seconds."""

    def __init__(self, galleries: Galleries, interval_s: float = INTERVAL_S) -> None:
        self._galleries, self._interval_s = galleries, interval_s
        self._stopped = Event()
        self._thread = Thread(target=self._run, name="upkeep", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop; what is under way is waited for."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(self._interval_s):
            try:
                self._galleries.maintain()
            except Exception:
                _log.exception("upkeep failed and will be repeated")
