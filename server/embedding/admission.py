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
    """A pool of ``capacity`` permits. An image needs more permits the more pixels it has. Thread-safe.

    An API key gets half of the permits for its first request at most, and more only while as many stay free as it has,
    so that others find some.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._in_flight = self._permits = 0
        self._by_key: dict[str, int] = {}
        self._finished: deque[tuple[float, int]] = deque()
        self._lock = threading.Lock()

    @property
    def in_flight(self) -> int:
        """Number of images that hold a permit."""
        return self._in_flight

    @contextmanager
    def admit(self, images: Collection[bytes], key: str | None = None) -> Iterator[None]:
        """Hold the permits of image files for the duration of the block; all permits if they need more than there are.

        ``key`` is the id of the caller's API key, None where there are no keys.

        Raises:
            Overloaded: too few permits are free, or the key has its share; carries an estimate of when to retry.
        """
        most = self.capacity if key is None else max(1, self.capacity // 2)
        permits = min(most, sum(map(permits_for, images)))
        with self._lock:
            held = 0 if key is None else self._by_key.get(key, 0)
            kept_free = held + permits if held else 0
            if self._permits + permits + kept_free > self.capacity:
                raise Overloaded(self._retry_after(permits + kept_free))
            self._hold(key, permits, len(images))
        try:
            yield
        finally:
            with self._lock:
                self._hold(key, -permits, -len(images))
                self._finished.append((time.monotonic(), permits))

    def _hold(self, key: str | None, permits: int, images: int) -> None:
        self._permits += permits
        self._in_flight += images
        if key is not None:
            self._by_key[key] = self._by_key.get(key, 0) + permits
            if not self._by_key[key]:
                del self._by_key[key]

    def _retry_after(self, permits: int) -> int:
        """Return the seconds until ``permits`` permits should be free at the current throughput; 1 if none is known."""
        now = time.monotonic()
        while self._finished and now - self._finished[0][0] > _WINDOW_S:
            self._finished.popleft()
        throughput = sum(count for _, count in self._finished) / _WINDOW_S
        missing = self._permits + permits - self.capacity
        return max(1, min(_MAX_RETRY_S, math.ceil(missing / throughput))) if throughput else 1
