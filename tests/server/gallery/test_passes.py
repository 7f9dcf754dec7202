"""Which searches share a pass, and that each gets its own answer."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event

import numpy as np
import pytest

from server.gallery.index import Mask, Rows, Scores
from server.gallery.passes import Passes
from server.gallery.types import Vectors

Found = tuple[Scores, Rows]


class Searching:
    """Answers with the queries themselves; holds each pass until it may go on."""

    def __init__(self) -> None:
        self.begun, self.go_on = Event(), Event()
        self.made: list[tuple[list[float], int, int]] = []

    def __call__(self, queries: Vectors, k: int, size: int, _allowed: Mask | None) -> Found:
        self.made.append((queries[:, 0].tolist(), k, size))
        self.begun.set()
        assert self.go_on.wait(30)
        if 13 in queries:
            raise MemoryError("no more")
        return np.repeat(queries, k, axis=1), np.full((len(queries), k), size)


class Line(list[object]):
    """Those who wait; tells when one more does."""

    def __init__(self) -> None:
        super().__init__()
        self.longer = Event()

    def append(self, one: object) -> None:
        super().append(one)
        self.longer.set()


class Callers:
    """Searches in threads of their own, the first of which is running, while the others wait for it in order."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self.searching = Searching()
        self._passes, self._pool, self._line = Passes(self.searching), pool, Line()
        self._passes._waiting = self._line  # type: ignore[assignment]
        self.found = [self._submit(0.0)]
        assert self.searching.begun.wait(30)

    def wait(self, *values: float, k: int = 2, size: int = 9, allowed: Mask | None = None) -> None:
        """Let one more wait."""
        self._line.longer.clear()
        self.found.append(self._submit(*values, k=k, size=size, allowed=allowed))
        assert self._line.longer.wait(30)

    def finish(self) -> list[tuple[list[float], int, int]]:
        """Let all go on; returns the passes that were made."""
        self.searching.go_on.set()
        for one in self.found:
            one.exception(30)
        return self.searching.made

    def _submit(self, *values: float, k: int = 2, size: int = 9, allowed: Mask | None = None) -> Future[Found]:
        queries = np.array(values, np.float32)[:, None]
        return self._pool.submit(self._passes.search, queries, k, size, allowed)


@pytest.fixture
def callers() -> Iterator[Callers]:
    with ThreadPoolExecutor(80) as pool:
        yield Callers(pool)


def test_those_who_wait_share_a_pass_and_get_their_own(callers: Callers) -> None:
    callers.wait(1, 2)
    callers.wait(3)
    callers.wait(4, 5, 6)
    assert callers.finish() == [([0], 2, 9), ([1, 2, 3, 4, 5, 6], 2, 9)]
    for future, values in zip(callers.found, [[0], [1, 2], [3], [4, 5, 6]], strict=True):
        scores, rows = future.result()
        assert scores.tolist() == [[value, value] for value in values]
        assert rows.shape == scores.shape


def test_only_what_is_asked_alike_shares_a_pass(callers: Callers) -> None:
    some, others = np.array([True, False]), np.array([False, True])
    callers.wait(1)
    callers.wait(2, k=3)
    callers.wait(3, size=8)
    callers.wait(4, allowed=some)
    callers.wait(5, allowed=others)
    callers.wait(6, allowed=some.copy())
    callers.wait(7)
    assert [queries for queries, _, _ in callers.finish()] == [[0], [1, 7], [2], [3], [4, 6], [5]]


def test_a_pass_has_an_end_and_a_search_of_many_queries_its_own(callers: Callers) -> None:
    for value in range(1, 67):
        callers.wait(value)
    callers.wait(*range(100, 200))
    assert [len(queries) for queries, _, _ in callers.finish()] == [1, 64, 2, 100]


def test_what_fails_reaches_those_of_its_pass_and_nobody_else(callers: Callers) -> None:
    callers.wait(12)
    callers.wait(13)
    callers.wait(14, k=3)
    callers.finish()
    for future in callers.found[1:3]:
        with pytest.raises(MemoryError, match="no more"):
            future.result()
    assert callers.found[3].result()[0].tolist() == [[14, 14, 14]]
