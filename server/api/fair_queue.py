"""Slots for heavy work. Callers wait for one in turns by API key, so that a flood of one key delays only itself."""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future

__all__ = ["FairQueue"]


class FairQueue:
    """``slots`` that are free or taken. Thread-safe."""

    def __init__(self, slots: int) -> None:
        self._free = slots
        self._waiting: dict[str | None, deque[Future[None]]] = {}  # in the order of their turns
        self._lock = threading.Lock()

    def take(self, key: str | None) -> Future[None]:
        """Return a future that completes when the caller has a slot, to be returned by :meth:`give_back`.

        Cancelling the future leaves the queue.
        """
        place: Future[None] = Future()
        with self._lock:
            if self._free:
                self._free -= 1
                place.set_result(None)
            else:
                self._waiting.setdefault(key, deque()).append(place)
                place.add_done_callback(lambda done: self._forget(key, done) if done.cancelled() else None)
        return place

    def give_back(self) -> None:
        """Hand a slot to the key whose turn it is, or free it if no caller waits."""
        with self._lock:
            place = self._next()
            if place is None:
                self._free += 1
        if place is not None:
            place.set_result(None)

    def _next(self) -> Future[None] | None:
        while self._waiting:
            key = next(iter(self._waiting))
            queue = self._waiting.pop(key)
            place = queue.popleft()
            if queue:
                self._waiting[key] = queue
            if place.set_running_or_notify_cancel():
                return place
        return None

    def _forget(self, key: str | None, place: Future[None]) -> None:
        with self._lock:
            queue = self._waiting.get(key, deque())
            if place in queue:
                queue.remove(place)
            if not queue:
                self._waiting.pop(key, None)
