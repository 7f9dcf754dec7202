"""The duration of a benchmark, and its result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.harness.statistics import Figure

__all__ = ["FULL", "QUICK", "BenchmarkResult", "Effort", "Row"]

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Effort:
    """Figures with a limit take ``rounds`` rounds of at least ``seconds`` each; ``quick`` omits large cases."""

    quick: bool
    rounds: int
    seconds: float


QUICK = Effort(quick=True, rounds=3, seconds=2)
FULL = Effort(quick=False, rounds=5, seconds=5)


@dataclass(slots=True)
class BenchmarkResult:
    """Tables by title, figures with a limit, and reasons why something was not measured."""

    tables: dict[str, list[Row]] = field(default_factory=dict)
    figures: list[Figure] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
