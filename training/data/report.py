"""Report of a data set check."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Count", "Report", "compare"]


@dataclass(frozen=True, slots=True)
class Count:
    """A count in a data set; ``expected`` is None if there is no published count."""

    what: str
    expected: int | None
    found: int

    @property
    def ok(self) -> bool:
        """Whether the counts agree or there is no expected one."""
        return self.expected in (None, self.found)


@dataclass(frozen=True, slots=True)
class Report:
    """Result of ``training.data.check.check``."""

    kind: str
    root: Path
    counts: tuple[Count, ...] = ()
    """Empty when the data set could not be read."""
    problem: str | None = None
    """The first missing or malformed file or folder."""
    stray: tuple[Path, ...] = ()
    """Files that are not part of the layout, such as ``Thumbs.db``; they are ignored."""
    skipped: tuple[str, ...] = ()
    """A line for each kind of ignored file or folder."""
    unreadable: tuple[str, ...] = ()
    """A line for each image that cannot be decoded."""

    @property
    def ok(self) -> bool:
        """Whether nothing is missing and every count is as expected; stray files are allowed."""
        return self.problem is None and not self.unreadable and all(count.ok for count in self.counts)

    def problems(self) -> list[str]:
        """Return a line for each problem, because of which ``ok`` is false."""
        first = [] if self.problem is None else [self.problem]
        counts = [f"{c.what}: expected {c.expected}, found {c.found}" for c in self.counts if not c.ok]
        return [*first, *counts, *self.unreadable]

    def warnings(self) -> list[str]:
        """Return a line for each kind of ignored file."""
        if not self.stray:
            return [*self.skipped]
        return [
            *self.skipped,
            f"skipped {len(self.stray)} files outside the layout, such as {self.stray[0]}",
        ]


def compare(expected: Mapping[str, int], found: Mapping[str, int]) -> tuple[Count, ...]:
    """Return a count for each expected one; a missing one is 0."""
    return tuple(Count(what, number, found.get(what, 0)) for what, number in expected.items())
