"""How many images may be in work at once. Tried, never awaited: there is no hidden queue before the queue."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from server.errors import Overloaded

__all__ = ["Admission"]

_WINDOW_S = 10.0
_LONGEST_RETRY_S = 60


class Admission:
    """``capacity`` permits, counted in images. Thread-safe."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._in_flight = 0
        self._finished: deque[tuple[float, int]] = deque()
        self._lock = threading.Lock()

    @property
    def in_flight(self) -> int:
        """Images that hold a permit."""
        return self._in_flight

    @contextmanager
    def admit(self, images: int) -> Iterator[None]:
        """Hold a permit for each of ``images`` during the block.

        Raises:
            Overloaded: there are not that many free; it says after how many seconds there should be.
        """
        with self._lock:
            if self._in_flight + images > self.capacity:
                raise Overloaded(self._retry_after(images))
            self._in_flight += images
        try:
            yield
        finally:
            with self._lock:
                self._in_flight -= images
                self._finished.append((time.monotonic(), images))

    def _retry_after(self, images: int) -> int:
        """Whole seconds until ``images`` permits should be free, at the pace of the last seconds; 1 without any."""
        now = time.monotonic()
        while self._finished and now - self._finished[0][0] > _WINDOW_S:
            self._finished.popleft()
        pace = sum(count for _, count in self._finished) / _WINDOW_S
        missing = self._in_flight + images - self.capacity
        return max(1, min(_LONGEST_RETRY_S, math.ceil(missing / pace))) if pace else 1
