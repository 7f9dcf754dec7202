"""Looks after the memory of the galleries, its snapshots and its inverted lists, as long as the server runs."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from functools import partial
from threading import Event, Thread, get_native_id

from server.gallery.service import Galleries

__all__ = ["INTERVAL_S", "Upkeep"]

INTERVAL_S = 10.0
"""Seconds between two looks."""

_log = logging.getLogger(__name__)


class Upkeep:
    """Calls ``Galleries.maintain`` every ``interval_s`` seconds, and ``make_lists``, which takes long, beside it."""

    def __init__(self, galleries: Galleries, interval_s: float = INTERVAL_S) -> None:
        self._interval_s = interval_s
        self._stopped = Event()
        work = {"upkeep": galleries.maintain, "lists": partial(_yielding, galleries.make_lists, self._stopped.is_set)}
        self._threads = [Thread(target=self._run, args=(one,), name=name, daemon=True) for name, one in work.items()]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Stop; what is under way is waited for, or given up where it would take long."""
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def _run(self, work: Callable[[], None]) -> None:
        while not self._stopped.wait(self._interval_s):
            try:
                work()
            except Exception:
                _log.exception("upkeep failed and will be repeated")


def _yielding(work: Callable[[Callable[[], bool]], None], stopped: Callable[[], bool]) -> None:
    """Work in a thread that lets all others go first."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, get_native_id(), 19)
    work(stopped)
