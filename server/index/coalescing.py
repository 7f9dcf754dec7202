"""Coalescing of concurrent searches into one pass over the vectors: many queries cost little more than one."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import Event, Lock

import numpy as np

from server.domain.types import Vectors
from server.index.protocol import Mask, Rows, Scores

__all__ = ["QueryCoalescer"]

_MAX_QUERIES = 64
"""Queries of one pass, unless a single search has more."""

Pass = Callable[[Vectors, int, int, Mask | None], tuple[Scores, Rows]]


@dataclass(eq=False, slots=True)
class _PendingQuery:
    queries: Vectors
    k: int
    size: int
    allowed: Mask | None
    turn: Event = field(default_factory=Event)
    """Set when the query is answered or first in the queue."""
    result: Future[tuple[Scores, Rows]] = field(default_factory=Future)

    def shares_pass(self, other: _PendingQuery) -> bool:
        if (self.k, self.size) != (other.k, other.size):
            return False
        if self.allowed is None or other.allowed is None:
            return self.allowed is other.allowed
        return np.array_equal(self.allowed, other.allowed)


class QueryCoalescer:
    """Runs one pass at a time with ``search(queries, k, size, allowed)``, which uses every core. Thread-safe.

    The first waiting thread runs a pass for all waiting queries of the same ``k``, ``size`` and mask, and then wakes
    the next one.
    """

    def __init__(self, search: Pass) -> None:
        self._search = search
        self._lock = Lock()
        self._waiting: list[_PendingQuery] = []
        self._busy = False

    def search(self, queries: Vectors, k: int, size: int, allowed: Mask | None) -> tuple[Scores, Rows]:
        """Return the result of ``search`` for these arguments. Raises what the shared pass raises."""
        own = _PendingQuery(queries, k, size, allowed)
        with self._lock:
            self._waiting.append(own)
            if not self._busy:
                self._busy = True
                own.turn.set()
        own.turn.wait()
        if not own.result.done():
            self._lead(own)
        return own.result.result()

    def _lead(self, own: _PendingQuery) -> None:
        together = self._joining(own)
        try:
            scores, rows = self._search(np.concatenate([one.queries for one in together]), own.k, own.size, own.allowed)
            ends = np.cumsum([len(one.queries) for one in together])[:-1]
            for one, one_scores, one_rows in zip(together, np.split(scores, ends), np.split(rows, ends), strict=True):
                one.result.set_result((one_scores, one_rows))
        except BaseException as error:
            for one in together:
                one.result.set_exception(error)
        finally:
            for one in together:
                one.turn.set()
            with self._lock:
                self._busy = bool(self._waiting)
                if self._waiting:
                    self._waiting[0].turn.set()

    def _joining(self, own: _PendingQuery) -> list[_PendingQuery]:
        """Take this query and those that can share its pass out of the queue."""
        together, queries = [own], len(own.queries)
        with self._lock:
            self._waiting.remove(own)
            for one in tuple(self._waiting):
                if queries + len(one.queries) <= _MAX_QUERIES and one.shares_pass(own):
                    together.append(one)
                    queries += len(one.queries)
                    self._waiting.remove(one)
        return together
