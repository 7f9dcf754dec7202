"""Coalescing: which searches share a pass, and that each gets its own result."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event

import numpy as np
import pytest

from server.domain.types import Vectors
from server.index.coalescing import QueryCoalescer
from server.index.protocol import Mask, Rows, Scores

Result = tuple[Scores, Rows]


class FakeSearch:
    """Returns the queries as scores; blocks each pass until ``may_finish`` is set."""

    def __init__(self) -> None:
        self.started, self.may_finish = Event(), Event()
        self.passes: list[tuple[list[float], int, int]] = []

    def __call__(self, queries: Vectors, k: int, size: int, _allowed: Mask | None) -> Result:
        self.passes.append((queries[:, 0].tolist(), k, size))
        self.started.set()
        assert self.may_finish.wait(30)
        if 13 in queries:
            raise MemoryError("no more")
        return np.repeat(queries, k, axis=1), np.full((len(queries), k), size)


class ObservedQueue(list[object]):
    """The waiting queries; sets ``grew`` when one is added."""

    def __init__(self) -> None:
        super().__init__()
        self.grew = Event()

    def append(self, one: object) -> None:
        super().append(one)
        self.grew.set()


class Callers:
    """Searches in separate threads: the first is running, the others wait in order."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self.fake_search = FakeSearch()
        self._coalescer, self._pool, self._queue = QueryCoalescer(self.fake_search), pool, ObservedQueue()
        self._coalescer._waiting = self._queue  # type: ignore[assignment]
        self.futures = [self._submit(0.0)]
        assert self.fake_search.started.wait(30)

    def add_waiting(self, *values: float, k: int = 2, size: int = 9, allowed: Mask | None = None) -> None:
        """Submit a search, and wait until it is in the queue."""
        self._queue.grew.clear()
        self.futures.append(self._submit(*values, k=k, size=size, allowed=allowed))
        assert self._queue.grew.wait(30)

    def finish(self) -> list[tuple[list[float], int, int]]:
        """Let all searches finish; return the passes."""
        self.fake_search.may_finish.set()
        for one in self.futures:
            one.exception(30)
        return self.fake_search.passes

    def _submit(self, *values: float, k: int = 2, size: int = 9, allowed: Mask | None = None) -> Future[Result]:
        queries = np.array(values, np.float32)[:, None]
        return self._pool.submit(self._coalescer.search, queries, k, size, allowed)


@pytest.fixture
def callers() -> Iterator[Callers]:
    with ThreadPoolExecutor(80) as pool:
        yield Callers(pool)


def test_waiting_searches_share_a_pass_and_get_their_own_results(callers: Callers) -> None:
    callers.add_waiting(1, 2)
    callers.add_waiting(3)
    callers.add_waiting(4, 5, 6)
    assert callers.finish() == [([0], 2, 9), ([1, 2, 3, 4, 5, 6], 2, 9)]
    for future, values in zip(callers.futures, [[0], [1, 2], [3], [4, 5, 6]], strict=True):
        scores, rows = future.result()
        assert scores.tolist() == [[value, value] for value in values]
        assert rows.shape == scores.shape


def test_only_searches_with_equal_parameters_share_a_pass(callers: Callers) -> None:
    some, others = np.array([True, False]), np.array([False, True])
    callers.add_waiting(1)
    callers.add_waiting(2, k=3)
    callers.add_waiting(3, size=8)
    callers.add_waiting(4, allowed=some)
    callers.add_waiting(5, allowed=others)
    callers.add_waiting(6, allowed=some.copy())
    callers.add_waiting(7)
    assert [queries for queries, _, _ in callers.finish()] == [[0], [1, 7], [2], [3], [4, 6], [5]]


def test_a_pass_is_limited_and_a_search_of_many_queries_runs_separately(callers: Callers) -> None:
    for value in range(1, 67):
        callers.add_waiting(value)
    callers.add_waiting(*range(100, 200))
    assert [len(queries) for queries, _, _ in callers.finish()] == [1, 64, 2, 100]


def test_an_error_fails_only_the_searches_of_its_pass(callers: Callers) -> None:
    callers.add_waiting(12)
    callers.add_waiting(13)
    callers.add_waiting(14, k=3)
    callers.finish()
    for future in callers.futures[1:3]:
        with pytest.raises(MemoryError, match="no more"):
            future.result()
    assert callers.futures[3].result()[0].tolist() == [[14, 14, 14]]
