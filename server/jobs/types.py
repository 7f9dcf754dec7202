"""What a job is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

__all__ = ["Failure", "Job", "JobState"]


class JobState(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether it stays so."""
        return self not in (JobState.QUEUED, JobState.RUNNING)


@dataclass(frozen=True, slots=True)
class Job:
    """A piece of long work. Ids rise with time.

    ``parameters`` are its kind's, as JSON. ``cursor`` is where it goes on from after a break, None at the start.
    ``total`` entries, None as long as it is not known, are ``done``, ``failed``, ``skipped`` (they were there already)
    or still ahead. ``error`` says, for people, why it failed.
    """

    id: str
    kind: str
    gallery: str | None
    state: JobState
    parameters: Mapping[str, Any]
    cursor: Any
    total: int | None
    done: int
    failed: int
    skipped: int
    error: str | None
    key_id: str | None
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None

    @property
    def processed(self) -> int:
        """Entries that are through, one way or another."""
        return self.done + self.failed + self.skipped


@dataclass(frozen=True, slots=True)
class Failure:
    """An entry that could not be used: its name, and the problem as JSON. ``number`` rises with time."""

    number: int
    name: str
    reason: Mapping[str, Any]
