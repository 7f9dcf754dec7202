"""The job table. The stored state is authoritative, so a crash loses no job and no result."""

from __future__ import annotations

import builtins
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Engine, Row, case, delete, func, insert, literal, select, update

from server.domain.errors import JobNotFound
from server.jobs.report import ReasonCounts
from server.jobs.types import Failure, Job, JobState
from server.storage import tables
from server.storage.transactions import reading, writing

__all__ = ["MOST_ATTEMPTS", "JobTable"]

MOST_ATTEMPTS = 5
"""Starts of a job in all, however much progress it makes between unclean ends."""

_PRUNED_AT_ONCE = 100

_jobs, _failures = tables.jobs.c, tables.job_failures.c
_QUEUED, _RUNNING = JobState.QUEUED.value, JobState.RUNNING.value
_UNENDED = (_QUEUED, _RUNNING)


class JobTable:
    """The jobs in the database of an engine (``SqlStore.engine``). Thread-safe.

    Writes are durable when they return, and raise ``StorageFull`` when the disk is full.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def add(self, job: Job) -> None:
        """Insert a new job."""
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
            "created_at": job.created_at,
        }
        with writing(self._engine) as connection:
            connection.execute(insert(tables.jobs).values(values))

    def get(self, id: str) -> Job:
        """Return one job. Raises ``JobNotFound``."""
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
        """Return at most ``limit`` jobs, newest first, starting after job ``after``.

        ``galleries`` restricts the list to jobs of these galleries; None means every job, with or without a gallery.
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
        """Return the ids of all jobs that have not ended."""
        with reading(self._engine) as connection:
            return set(connection.scalars(select(_jobs.id).where(_jobs.state.in_(_UNENDED))))

    def oldest_queued(self) -> dict[str | None, str]:
        """Return the oldest queued job of each gallery that has one."""
        query = (
            select(_jobs.gallery, func.min(_jobs.id).label("id")).where(_jobs.state == _QUEUED).group_by(_jobs.gallery)
        )
        with reading(self._engine) as connection:
            return {row.gallery: row.id for row in connection.execute(query.where(_jobs.state == _QUEUED))}

    def start(self, id: str) -> Job | None:
        """Mark a queued job as running and return it; None if it is not queued any more."""
        change = update(tables.jobs).where(_jobs.id == id, _jobs.state == _QUEUED)
        with writing(self._engine) as connection:
            # The clock is read inside the transaction: while this write waited, a job may have been created later.
            started = func.coalesce(_jobs.started_at, literal(_now(), _jobs.started_at.type))
            attempts = case((_jobs.attempts == 0, 1), else_=_jobs.attempts)
            change = change.values(state=_RUNNING, started_at=started, attempts=attempts)
            row = connection.execute(change.returning(*tables.jobs.c)).one_or_none()
        return None if row is None else _to_job(row)

    def requeue(self, id: str, run_s: float | None = None) -> None:
        """Put a running job back into the queue; progress is kept."""
        change = update(tables.jobs).where(_jobs.id == id, _jobs.state == _RUNNING)
        with writing(self._engine) as connection:
            connection.execute(change.values(state=_QUEUED, **({} if run_s is None else {"run_s": run_s})))

    def end_uncleanly(self, id: str | None = None) -> builtins.list[Job]:
        """Record that one running job, or every one, ended without a word, as when its process dies.

        It is queued again, once unless it made progress since, and :data:`MOST_ATTEMPTS` times at most. Returns the
        jobs that are not, which are still running.
        """
        running = (_jobs.state == _RUNNING) if id is None else (_jobs.state == _RUNNING) & (_jobs.id == id)
        retried = (_jobs.unclean_ends <= 1) & (_jobs.attempts < MOST_ATTEMPTS)
        with writing(self._engine) as connection:
            connection.execute(update(tables.jobs).where(running).values(unclean_ends=_jobs.unclean_ends + 1))
            again = update(tables.jobs).where(running, retried)
            connection.execute(again.values(state=_QUEUED, attempts=_jobs.attempts + 1))
            return [_to_job(row) for row in connection.execute(select(tables.jobs).where(running))]

    def set_total(self, id: str, total: int, report: Mapping[str, Any] | None = None) -> None:
        """Store the number of entries of a job."""
        values: dict[str, Any] = {"total": total} if report is None else {"total": total, "report": dict(report)}
        with writing(self._engine) as connection:
            connection.execute(update(tables.jobs).where(_jobs.id == id).values(values))

    def advance(
        self,
        id: str,
        cursor: Any,
        *,
        done: int,
        skipped: int,
        failed: int,
        failures: Sequence[tuple[str, Mapping[str, Any]]],
        run_s: float,
        report: Mapping[str, Any] | None,
    ) -> JobState:
        """Store the progress up to ``cursor`` in one transaction; returns the state, which others may have changed.

        Of ``failed`` entries those in ``failures`` are listed by name.
        """
        change = update(tables.jobs).where(_jobs.id == id)
        change = change.values(
            progress={"cursor": cursor},
            done=_jobs.done + done,
            skipped=_jobs.skipped + skipped,
            failed=_jobs.failed + failed,
            unclean_ends=0,
            run_s=run_s,
            **({} if report is None else {"report": dict(report)}),
        )
        rows = [{"job": id, "name": name, "reason": dict(reason)} for name, reason in failures]
        with writing(self._engine) as connection:
            if rows:
                connection.execute(insert(tables.job_failures), rows)
            return JobState(connection.scalars(change.returning(_jobs.state)).one())

    def end(self, id: str, state: JobState, error: str | None = None) -> Job:
        """Set the final state of a job that has not ended; returns the stored job. Raises ``JobNotFound``."""
        change = update(tables.jobs).where(_jobs.id == id, _jobs.state.in_(_UNENDED))
        with writing(self._engine) as connection:
            connection.execute(change.values(state=state.value, error=error, finished_at=_now()))
        return self.get(id)

    def prune(self, finished_before: datetime, keep: int) -> int:
        """Remove ended jobs, with their failures, that ended before a moment or are not among the newest ``keep``.

        Returns how many; some remain where there are very many.
        """
        ended = select(_jobs.id).where(_jobs.state.not_in(_UNENDED))
        old = ended.where(_jobs.finished_at < finished_before).order_by(_jobs.id).limit(_PRUNED_AT_ONCE)
        beyond = ended.order_by(_jobs.id.desc()).offset(keep).limit(_PRUNED_AT_ONCE)
        with reading(self._engine) as connection:
            ids = {*connection.scalars(old), *connection.scalars(beyond)}
        if ids:
            with writing(self._engine) as connection:
                connection.execute(delete(tables.jobs).where(_jobs.id.in_(sorted(ids))))
        return len(ids)

    def failures(self, id: str, *, limit: int, after: int | None = None) -> builtins.list[Failure]:
        """Return at most ``limit`` failures of a job, oldest first, with numbers above ``after``."""
        query = select(tables.job_failures).where(_failures.job == id).order_by(_failures.number).limit(limit)
        if after is not None:
            query = query.where(_failures.number > after)
        with reading(self._engine) as connection:
            return [Failure(row.number, row.name, row.reason) for row in connection.execute(query)]


def _now() -> datetime:
    return datetime.now(UTC)


def _to_job(row: Row[Any]) -> Job:
    report = row.report or {}
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
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        attempts=row.attempts,
        run_s=row.run_s,
        replaced=report.get("replaced", 0),
        ignored=ReasonCounts(report.get("ignored", ())),
        failures_by_reason=ReasonCounts(report.get("failed", ())),
    )
