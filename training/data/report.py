"""What a check of a data set found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Count", "Report", "compare"]


@dataclass(frozen=True, slots=True)
class Count:
    """A number of things in a data set; ``expected`` is None where nothing is published to compare with."""

    what: str
    expected: int | None
    found: int

    @property
    def ok(self) -> bool:
        """Whether the numbers agree, or there is nothing to agree with."""
        return self.expected in (None, self.found)


@dataclass(frozen=True, slots=True)
class Report:
    """Outcome of ``training.data.check.check``."""

    kind: str
    root: Path
    counts: tuple[Count, ...] = ()
    """Empty when the data set could not be read."""
    problem: str | None = None
    """The first thing that is missing or malformed."""
    stray: tuple[Path, ...] = ()
    """Files that the layout does not know, such as ``Thumbs.db``; they are not read."""
    skipped: tuple[str, ...] = ()
    """A line for each kind of file or folder that is not read."""
    unreadable: tuple[str, ...] = ()
    """A line for each image that cannot be decoded."""

    @property
    def ok(self) -> bool:
        """Nothing is missing and every count is as expected; stray files are allowed."""
        return self.problem is None and not self.unreadable and all(count.ok for count in self.counts)

    def problems(self) -> list[str]:
        """One line for everything that keeps ``ok`` from being true."""
        first = [] if self.problem is None else [self.problem]
        counts = [f"{c.what}: expected {c.expected}, found {c.found}" for c in self.counts if not c.ok]
        return [*first, *counts, *self.unreadable]

    def warnings(self) -> list[str]:
        """Return one line for everything that is not read but does not keep ``ok`` from being true."""
        if not self.stray:
            return [*self.skipped]
        return [
            *self.skipped,
            f"skipped {len(self.stray)} files outside the layout, such as {self.stray[0]}",
        ]


def compare(expected: Mapping[str, int], found: Mapping[str, int]) -> tuple[Count, ...]:
    """A count for each expected one; what was not found at all is 0."""
    return tuple(Count(what, number, found.get(what, 0)) for what, number in expected.items())
