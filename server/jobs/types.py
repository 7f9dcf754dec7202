"""Jobs, their states and their failures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from server.jobs.report import ReasonCounts

__all__ = ["Failure", "Job", "JobState"]


class JobState(StrEnum):
    """State of a job."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether the state is final."""
        return self not in (JobState.QUEUED, JobState.RUNNING)


@dataclass(frozen=True, slots=True)
class Job:
    """A background job. Ids sort by creation time.

    ``parameters`` is JSON that the handler of ``kind`` understands. ``cursor`` is the position to resume from, None
    before the first step. Of ``total`` entries (None while unknown) some are ``done``, ``failed`` or ``skipped``
    (already in the gallery unchanged); the others are pending. Of those done some ``replaced`` items. Files that are
    not entries are ``ignored``. ``error`` explains to people why the job failed.

    ``attempts`` counts the first start and each one after an unclean end; ``run_s`` are the seconds it ran in all.
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
    attempts: int = 0
    run_s: float = 0.0
    replaced: int = 0
    ignored: ReasonCounts = field(default_factory=ReasonCounts)
    failures_by_reason: ReasonCounts = field(default_factory=ReasonCounts)

    @property
    def processed(self) -> int:
        """Number of entries that were handled, successfully or not."""
        return self.done + self.failed + self.skipped


@dataclass(frozen=True, slots=True)
class Failure:
    """An entry that failed: its name, and the problem as JSON. ``number`` grows with time."""

    number: int
    name: str
    reason: Mapping[str, Any]
