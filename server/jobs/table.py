"""Jobs as rows: what is on the disk decides, so that a crash loses no job and no answer about one."""

from __future__ import annotations

import builtins
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Engine, Row, func, insert, or_, select, update

from server.errors import JobNotFound
from server.gallery import tables
from server.gallery.database import reading, writing
from server.gallery.moments import from_micros, to_micros
from server.jobs.types import Failure, Job, JobState

__all__ = ["JobTable"]

_jobs, _failures = tables.jobs.c, tables.job_failures.c


class JobTable:
    """The jobs in the database of an engine (``SqlStore.engine``). Thread-safe.

    What writes is on the disk when it returns, and raises ``StorageFull`` where the disk has no room.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def add(self, job: Job) -> None:
        """Store a new job."""
        values = {
            "id": job.id,
            "kind": job.kind,
            "gallery": job.gallery,
            "state": job.state.value,
            "parameters": dict(job.parameters),
            "progress": {"cursor": job.cursor},
            "total": job.total,
            "done": job.done,
            "failed": job.failed,
            "skipped": job.skipped,
            "key_id": job.key_id,
            "created_at": to_micros(job.created_at),
        }
        with writing(self._engine) as connection:
            connection.execute(insert(tables.jobs).values(values))

    def get(self, id: str) -> Job:
        """One job. Raises ``JobNotFound``."""
        with reading(self._engine) as connection:
            row = connection.execute(select(tables.jobs).where(_jobs.id == id)).one_or_none()
        if row is None:
            raise JobNotFound(id)
        return _to_job(row)

    def list(
        self,
        *,
        limit: int,
        after: str | None = None,
        state: JobState | None = None,
        galleries: Collection[str] | None = None,
    ) -> list[Job]:
        """At most ``limit`` jobs, newest first, those that follow job ``after`` in that order.

        ``galleries``: only jobs of these; None: all, also those of no gallery.
        """
        query = select(tables.jobs).order_by(_jobs.id.desc()).limit(limit)
        if after is not None:
            query = query.where(_jobs.id < after)
        if state is not None:
            query = query.where(_jobs.state == state.value)
        if galleries is not None:
            query = query.where(_jobs.gallery.in_(sorted(galleries)))
        with reading(self._engine) as connection:
            return [_to_job(row) for row in connection.execute(query)]

    def active(self) -> set[str]:
        """The ids of all jobs that have not ended."""
        unfinished = [state.value for state in JobState if not state.ended]
        with reading(self._engine) as connection:
            return set(connection.scalars(select(_jobs.id).where(_jobs.state.in_(unfinished))))

    def take(self) -> Job | None:
        """The oldest job in the queue, which is running from now on; None where none waits."""
        oldest = select(func.min(_jobs.id)).where(_jobs.state == JobState.QUEUED.value).scalar_subquery()
        with reading(self._engine) as connection:  # most calls find nothing, and shall not write for it
            if connection.scalar(select(oldest)) is None:
                return None
        change = update(tables.jobs).where(_jobs.id == oldest)
        with writing(self._engine) as connection:
            # Only now, or a job that was made while this one waited for its turn would begin before it was there.
            started = func.coalesce(_jobs.started_at, _now())
            change = change.values(state=JobState.RUNNING.value, started_at=started)
            row = connection.execute(change.returning(*tables.jobs.c)).one_or_none()
        return None if row is None else _to_job(row)

    def requeue(self, id: str | None = None) -> None:
        """Put a running job, or all of them, back into the queue, with their progress."""
        running = _jobs.state == JobState.RUNNING.value
        change = update(tables.jobs).where(running if id is None else running & (_jobs.id == id))
        with writing(self._engine) as connection:
            connection.execute(change.values(state=JobState.QUEUED.value))

    def set_total(self, id: str, total: int) -> None:
        """Note how many entries there are."""
        with writing(self._engine) as connection:
            connection.execute(update(tables.jobs).where(_jobs.id == id).values(total=total))

    def advance(
        self, id: str, cursor: Any, *, done: int, skipped: int, failures: Sequence[tuple[str, Mapping[str, Any]]]
    ) -> JobState:
        """Note what was worked off until ``cursor``, in one transaction; returns the state, which others may change."""
        change = update(tables.jobs).where(_jobs.id == id)
        change = change.values(
            progress={"cursor": cursor},
            done=_jobs.done + done,
            skipped=_jobs.skipped + skipped,
            failed=_jobs.failed + len(failures),
        )
        rows = [{"job": id, "name": name, "reason": dict(reason)} for name, reason in failures]
        with writing(self._engine) as connection:
            if rows:
                connection.execute(insert(tables.job_failures), rows)
            return JobState(connection.scalars(change.returning(_jobs.state)).one())

    def end(self, id: str, state: JobState, error: str | None = None) -> Job:
        """End a job, unless it has ended already; returns it as it is now. Raises ``JobNotFound``."""
        unfinished = or_(_jobs.state == JobState.QUEUED.value, _jobs.state == JobState.RUNNING.value)
        change = update(tables.jobs).where(_jobs.id == id, unfinished)
        with writing(self._engine) as connection:
            connection.execute(change.values(state=state.value, error=error, finished_at=_now()))
        return self.get(id)

    def failures(self, id: str, *, limit: int, after: int | None = None) -> builtins.list[Failure]:
        """At most ``limit`` failures of a job, oldest first, those with a number above ``after``."""
        query = select(tables.job_failures).where(_failures.job == id).order_by(_failures.number).limit(limit)
        if after is not None:
            query = query.where(_failures.number > after)
        with reading(self._engine) as connection:
            return [Failure(row.number, row.name, row.reason) for row in connection.execute(query)]


def _now() -> int:
    return to_micros(datetime.now(UTC))


def _to_job(row: Row[Any]) -> Job:
    return Job(
        id=row.id,
        kind=row.kind,
        gallery=row.gallery,
        state=JobState(row.state),
        parameters=row.parameters,
        cursor=row.progress["cursor"],
        total=row.total,
        done=row.done,
        failed=row.failed,
        skipped=row.skipped,
        error=row.error,
        key_id=row.key_id,
        created_at=from_micros(row.created_at),
        started_at=None if row.started_at is None else from_micros(row.started_at),
        finished_at=None if row.finished_at is None else from_micros(row.finished_at),
    )
