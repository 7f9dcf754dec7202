"""Medians, percentiles and ratios of alternating measurements, so that both sides see the same machine load."""

from __future__ import annotations

import math
import operator
import statistics
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

__all__ = ["Figure", "alternate", "difference", "level", "percentile", "ratio", "sample"]

Name = TypeVar("Name", bound=Hashable)
T = TypeVar("T")
Bound = Literal["at least", "at most"]


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure with a limit: the median over the rounds, and the smallest and the largest value."""

    name: str
    value: float
    low: float
    high: float
    bound: Bound
    limit: float

    @property
    def kept(self) -> bool:
        """Whether the median is within the limit."""
        return self.value >= self.limit if self.bound == "at least" else self.value <= self.limit

    def as_json(self) -> dict[str, Any]:
        """Return the figure as an entry of a result file."""
        figures = {side: round(getattr(self, side), 4) for side in ("value", "low", "high")}
        return {"name": self.name, **figures, "bound": self.bound, "limit": self.limit, "kept": self.kept}


def ratio(name: str, above: Sequence[float], below: Sequence[float], bound: Bound, limit: float) -> Figure:
    """Return ``above`` / ``below`` round by round, which cancels changes of the machine's load.

    Raises:
        ValueError: there is no round, or the numbers of rounds differ.
    """
    return _figure(name, above, below, operator.truediv, bound, limit)


def difference(name: str, first: Sequence[float], second: Sequence[float], bound: Bound, limit: float) -> Figure:
    """Return ``first`` - ``second`` round by round; raises like :func:`ratio`."""
    return _figure(name, first, second, operator.sub, bound, limit)


def level(name: str, values: Sequence[float], bound: Bound, limit: float) -> Figure:
    """Return the figure of plain values; raises like :func:`ratio`."""
    return _figure(name, values, values, lambda one, _: one, bound, limit)


def _figure(
    name: str,
    first: Sequence[float],
    second: Sequence[float],
    compare: Callable[[float, float], float],
    bound: Bound,
    limit: float,
) -> Figure:
    if not first or len(first) != len(second):
        raise ValueError(f"{name}: expected the same rounds of both, found {len(first)} and {len(second)}")
    found = [compare(*pair) for pair in zip(first, second, strict=True)]
    return Figure(name, statistics.median(found), min(found), max(found), bound, limit)


def alternate(contenders: Mapping[Name, Callable[[], T]], rounds: int) -> dict[Name, list[T]]:
    """Call each once per round, in reverse order every second round, so that a slow drift favours none."""
    found: dict[Name, list[T]] = {name: [] for name in contenders}
    for number in range(rounds):
        names = list(contenders)
        for name in names if number % 2 == 0 else reversed(names):
            found[name].append(contenders[name]())
    return found


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that at least ``percent`` of all values do not exceed (nearest rank).

    Raises:
        ValueError: there is no value.
    """
    if not values:
        raise ValueError("expected at least one value")
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def sample(call: Callable[[], object], seconds: float, least: int = 3) -> list[float]:
    """Return the seconds of each call; calls repeat for about ``seconds`` in total, at least ``least`` times."""
    took: list[float] = []
    end = time.perf_counter() + seconds
    while len(took) < least or time.perf_counter() < end:
        started = time.perf_counter()
        call()
        took.append(time.perf_counter() - started)
    return took
