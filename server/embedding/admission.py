"""A limit on the work in progress. Admission never waits: a request is admitted or refused immediately."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from server.domain.errors import Overloaded
from server.embedding.image_file import pixel_count

__all__ = ["Admission", "permits_for"]

PIXELS_PER_PERMIT = 1 << 19
_BYTES_PER_PERMIT = 1 << 18

_WINDOW_S = 10.0
_MAX_RETRY_S = 60


def permits_for(image: bytes) -> int:
    """Return the permits that an image file needs: 1 for a crop, 48 for 25 million pixels."""
    pixels = pixel_count(image)
    return 1 + (pixels // PIXELS_PER_PERMIT if pixels else len(image) // _BYTES_PER_PERMIT)


class Admission:
    """A pool of ``capacity`` permits. An image needs more permits the more pixels it has. Thread-safe."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._in_flight = self._permits = 0
        self._finished: deque[tuple[float, int]] = deque()
        self._lock = threading.Lock()

    @property
    def in_flight(self) -> int:
        """Number of images that hold a permit."""
        return self._in_flight

    @contextmanager
    def admit(self, images: Collection[bytes]) -> Iterator[None]:
        """Hold the permits of image files for the duration of the block; all permits if they need more than there are.

        Raises:
            Overloaded: too few permits are free; carries an estimate of when to retry.
        """
        permits = min(self.capacity, sum(map(permits_for, images)))
        with self._lock:
            if self._permits + permits > self.capacity:
                raise Overloaded(self._retry_after(permits))
            self._permits += permits
            self._in_flight += len(images)
        try:
            yield
        finally:
            with self._lock:
                self._permits -= permits
                self._in_flight -= len(images)
                self._finished.append((time.monotonic(), permits))

    def _retry_after(self, permits: int) -> int:
        """Return the seconds until ``permits`` permits should be free at the current throughput; 1 if none is known."""
        now = time.monotonic()
        while self._finished and now - self._finished[0][0] > _WINDOW_S:
            self._finished.popleft()
        throughput = sum(count for _, count in self._finished) / _WINDOW_S
        missing = self._permits + permits - self.capacity
        return max(1, min(_MAX_RETRY_S, math.ceil(missing / throughput))) if throughput else 1
