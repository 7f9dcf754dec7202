"""How long a benchmark may take, and what it found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.harness.statistics import Figure

__all__ = ["FULL", "QUICK", "Effort", "Found", "Row"]

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Effort:
    """``rounds`` of what a figure with a limit needs, each of at least ``seconds``; ``quick`` leaves out much."""

    quick: bool
    rounds: int
    seconds: float


QUICK = Effort(quick=True, rounds=3, seconds=2)
FULL = Effort(quick=False, rounds=5, seconds=5)


@dataclass(slots=True)
class Found:
    """Tables by their title, figures with a limit, and what could not be measured and why."""

    tables: dict[str, list[Row]] = field(default_factory=dict)
    figures: list[Figure] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
