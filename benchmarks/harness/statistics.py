"""Medians, percentiles and ratios of figures that were taken in turns, so that both sides met the same machine."""

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
    """Something with a limit: the median over the rounds, and the least and the largest of them."""

    name: str
    value: float
    low: float
    high: float
    bound: Bound
    limit: float

    @property
    def kept(self) -> bool:
        """Whether the median keeps the limit."""
        return self.value >= self.limit if self.bound == "at least" else self.value <= self.limit

    def as_json(self) -> dict[str, Any]:
        """What a result file holds."""
        figures = {side: round(getattr(self, side), 4) for side in ("value", "low", "high")}
        return {"name": self.name, **figures, "bound": self.bound, "limit": self.limit, "kept": self.kept}


def ratio(name: str, above: Sequence[float], below: Sequence[float], bound: Bound, limit: float) -> Figure:
    """``above`` / ``below`` round by round, which cancels what the machine did to both of a round.

    Raises:
        ValueError: there is no round, or not the same number of both.
    """
    return _figure(name, above, below, operator.truediv, bound, limit)


def difference(name: str, first: Sequence[float], second: Sequence[float], bound: Bound, limit: float) -> Figure:
    """``first`` - ``second`` round by round; raises as :func:`ratio`."""
    return _figure(name, first, second, operator.sub, bound, limit)


def level(name: str, values: Sequence[float], bound: Bound, limit: float) -> Figure:
    """Something as it is; raises as :func:`ratio`."""
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
    """Call each once a round; every second round in the reverse order, so that a slow drift favours nobody."""
    found: dict[Name, list[T]] = {name: [] for name in contenders}
    for number in range(rounds):
        names = list(contenders)
        for name in names if number % 2 == 0 else reversed(names):
            found[name].append(contenders[name]())
    return found


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least ``percent`` of all do not exceed (nearest rank).

    Raises:
        ValueError: there is no value.
    """
    if not values:
        raise ValueError("expected at least one value")
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def sample(call: Callable[[], object], seconds: float, least: int = 3) -> list[float]:
    """Seconds of each call, for about ``seconds`` altogether and at least ``least`` calls."""
    took: list[float] = []
    end = time.perf_counter() + seconds
    while len(took) < least or time.perf_counter() < end:
        started = time.perf_counter()
        call()
        took.append(time.perf_counter() - started)
    return took
