"""Jobs: long-running work of the server."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from pydantic import Field

from vireid.schemas.base import Schema
from vireid.schemas.paging import PageQuery
from vireid.schemas.problems import Problem

__all__ = ["JobFailure", "JobFailuresPage", "JobSelection", "JobState", "JobStatus", "JobsPage", "ReasonCount"]


class JobState(StrEnum):
    """State of a job."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class JobSelection(PageQuery):
    """A page of the jobs, of all of them or of those in one state."""

    state: JobState | None = None


class ReasonCount(Schema):
    """How many entries share a reason, and the names of the first of them."""

    reason: str = Field(description="Reason of the first of these entries.")
    count: int
    examples: tuple[str, ...]


class JobStatus(Schema):
    """A job and its progress. Entries are done, failed, skipped (stored already) or still to be processed."""

    id: str
    kind: str
    gallery: str | None
    state: JobState
    total: int | None = Field(description="Number of entries; null: not known yet.")
    done: int
    failed: int
    skipped: int
    rate: float | None = Field(
        description="Entries per second: recently while the job runs, on average once it has ended."
    )
    eta_s: float | None = Field(description="Seconds until the job ends, at that rate.")
    error: str | None = Field(description="Why the job failed.")
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    attempts: int = Field(0, description="Number of starts: one, and one more after each unclean end.")
    replaced: int = Field(0, description="Number of done entries that overwrote an item with other content.")
    ignored: int = Field(0, description="Number of files that are no entries: hidden, of the system, of other types.")
    ignored_by_reason: tuple[ReasonCount, ...] = Field((), description="Ignored files by reason, most frequent first.")
    failed_by_reason: tuple[ReasonCount, ...] = Field((), description="Failures by reason, most frequent first.")

    @property
    def processed(self) -> int:
        """Number of entries that are done, failed or skipped."""
        return self.done + self.failed + self.skipped

    @property
    def ended(self) -> bool:
        """Whether the job has succeeded, failed or been cancelled."""
        return self.finished_at is not None


class JobsPage(Schema):
    """Jobs, newest first."""

    jobs: tuple[JobStatus, ...]
    next_cursor: str | None


class JobFailure(Schema):
    """A failed entry of a job: the path of a file, or the position of a line or row."""

    name: str
    error: Problem


class JobFailuresPage(Schema):
    """Failed entries, oldest first."""

    failures: tuple[JobFailure, ...]
    next_cursor: str | None
