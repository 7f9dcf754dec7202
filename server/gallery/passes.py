"""Searches that come while one runs are made together after it: many queries cost little more than one."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import Event, Lock

import numpy as np

from server.gallery.index import Mask, Rows, Scores
from server.gallery.types import Vectors

__all__ = ["Passes"]

_MOST = 64
"""Queries of one pass, unless a single search has more."""

Pass = Callable[[Vectors, int, int, Mask | None], tuple[Scores, Rows]]


@dataclass(eq=False, slots=True)
class _Asked:
    queries: Vectors
    k: int
    size: int
    allowed: Mask | None
    turn: Event = field(default_factory=Event)
    """It is answered, or first in line."""
    found: Future[tuple[Scores, Rows]] = field(default_factory=Future)

    def shares_pass(self, other: _Asked) -> bool:
        if (self.k, self.size) != (other.k, other.size):
            return False
        if self.allowed is None or other.allowed is None:
            return self.allowed is other.allowed
        return np.array_equal(self.allowed, other.allowed)


class Passes:
    """One pass at a time over the same vectors, by ``search(queries, k, size, allowed)``, which uses every core.

    Whoever comes first makes a pass for all who wait with the same ``k``, ``size`` and mask, and then lets the next
    one go. Thread-safe.
    """

    def __init__(self, search: Pass) -> None:
        self._search = search
        self._lock = Lock()
        self._waiting: list[_Asked] = []
        self._busy = False

    def search(self, queries: Vectors, k: int, size: int, allowed: Mask | None) -> tuple[Scores, Rows]:
        """What ``search`` gives for these arguments. Raises what it raises for any that shared the pass."""
        mine = _Asked(queries, k, size, allowed)
        with self._lock:
            self._waiting.append(mine)
            if not self._busy:
                self._busy = True
                mine.turn.set()
        mine.turn.wait()
        if not mine.found.done():
            self._lead(mine)
        return mine.found.result()

    def _lead(self, mine: _Asked) -> None:
        together = self._joining(mine)
        try:
            scores, rows = self._search(
                np.concatenate([one.queries for one in together]), mine.k, mine.size, mine.allowed
            )
            ends = np.cumsum([len(one.queries) for one in together])[:-1]
            for one, near, there in zip(together, np.split(scores, ends), np.split(rows, ends), strict=True):
                one.found.set_result((near, there))
        except BaseException as error:
            for one in together:
                one.found.set_exception(error)
        finally:
            for one in together:
                one.turn.set()
            with self._lock:
                self._busy = bool(self._waiting)
                if self._waiting:
                    self._waiting[0].turn.set()

    def _joining(self, mine: _Asked) -> list[_Asked]:
        """This one and those who wait for the same, taken out of the line."""
        together, queries = [mine], len(mine.queries)
        with self._lock:
            self._waiting.remove(mine)
            for one in tuple(self._waiting):
                if queries + len(one.queries) <= _MOST and one.shares_pass(mine):
                    together.append(one)
                    queries += len(one.queries)
                    self._waiting.remove(one)
        return together
