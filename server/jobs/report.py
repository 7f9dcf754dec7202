"""Entries of a job counted by reason, so that a million equal failures read as one line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["ReasonCount", "ReasonCounts"]

_MAX_REASONS = 20
_MAX_EXAMPLES = 3
_OTHER_REASONS = "other reasons"
_VARIABLE = re.compile(r"\S*[\d/\\]\S*|\S+\.\w{2,5}\b")
"""Words of a reason that differ from entry to entry: numbers, paths, file names."""


@dataclass(slots=True)
class ReasonCount:
    """How many entries share a reason; the reason is that of the first, ``examples`` are names of the first few."""

    reason: str
    count: int = 0
    examples: list[str] = field(default_factory=list)


class ReasonCounts:
    """Counts by reason, of bounded size whatever is added."""

    def __init__(self, stored: Iterable[Mapping[str, Any]] = ()) -> None:
        self._counts = {_key(one["reason"]): ReasonCount(**one) for one in stored}

    def add(self, reason: str, name: str, count: int = 1) -> None:
        """Count entries that share a reason."""
        key = _key(reason)
        if key not in self._counts and len(self._counts) >= _MAX_REASONS:
            reason = key = _OTHER_REASONS
        found = self._counts.setdefault(key, ReasonCount(reason))
        found.count += count
        if len(found.examples) < _MAX_EXAMPLES and name not in found.examples:
            found.examples.append(name)

    @property
    def total(self) -> int:
        """Number of entries counted."""
        return sum(one.count for one in self._counts.values())

    def most_common(self) -> list[ReasonCount]:
        """Return the counts, largest first."""
        return sorted(self._counts.values(), key=lambda one: -one.count)

    def to_json(self) -> list[dict[str, Any]]:
        """Return the counts as JSON, from which the constructor restores them."""
        return [{"reason": one.reason, "count": one.count, "examples": one.examples} for one in self.most_common()]


def _key(reason: str) -> str:
    return _VARIABLE.sub("…", reason)
