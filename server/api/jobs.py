"""Jobs: status, events, cancellation, failures."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from fastapi.sse import EventSourceResponse
from starlette.concurrency import run_in_threadpool

from server.api.app_state import AppState, StateDep
from server.api.auth import Reader
from server.api.dependencies import JobId
from server.api.errors import problems
from server.api.paging import decode_cursor, decode_number_cursor, split_page
from server.domain.errors import JobNotFound
from server.jobs.types import Job, JobState
from server.storage.api_keys import Scope
from vireid.schemas.jobs import JobFailure, JobFailuresPage, JobSelection, JobsPage, JobStatus
from vireid.schemas.paging import PageQuery

__all__ = ["router", "to_job_status"]

_EVENT_INTERVAL_S = 0.2

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


def _visible(job: JobId, state: StateDep, caller: Reader) -> Job:
    """Return the job if the API key covers its gallery; a job without a gallery needs a key for all galleries."""
    found = state.jobs.get(job)
    if not caller.covers(found.gallery):
        raise JobNotFound(job)
    return found


VisibleJob = Annotated[Job, Depends(_visible)]


@router.get("", summary="List jobs", responses=problems())
def list_jobs(state: StateDep, caller: Reader, selection: Annotated[JobSelection, Query()]) -> JobsPage:
    """Return the jobs of the galleries that the API key covers, newest first."""
    found = state.jobs.list(
        limit=selection.limit + 1,
        after=decode_cursor(selection.cursor),
        state=None if selection.state is None else JobState(selection.state),
        galleries=caller.galleries,
    )
    jobs, next_cursor = split_page(found, selection.limit, lambda job: job.id)
    return JobsPage(jobs=[to_job_status(state, job) for job in jobs], next_cursor=next_cursor)


@router.get("/{job}", summary="Get a job", responses=problems(404))
def get_job(job: VisibleJob, state: StateDep) -> JobStatus:
    """Return one job."""
    return to_job_status(state, job)


@router.get("/{job}/events", summary="Follow a job", response_class=EventSourceResponse, responses=problems(404))
async def job_events(job: VisibleJob, state: StateDep) -> AsyncIterator[JobStatus]:
    """Stream the status of a job, now and after each change, as server-sent events.

    At most five events are sent per second. The stream ends when the job ends or the server stops.
    """
    changed, loop = asyncio.Event(), asyncio.get_running_loop()
    with state.jobs.watching(job.id, lambda: loop.call_soon_threadsafe(changed.set)):
        while True:
            changed.clear()
            current = await run_in_threadpool(state.jobs.get, job.id)
            yield to_job_status(state, current)
            if current.state.ended or state.jobs.stopped:
                return
            await changed.wait()
            await asyncio.sleep(_EVENT_INTERVAL_S)  # an import advances 20 times per second; each event costs time


@router.post("/{job}/cancel", summary="Cancel a job", responses=problems(404, 507))
def cancel_job(job: VisibleJob, state: StateDep, caller: Reader) -> JobStatus:
    """Cancel a job; what it has stored stays. A job that has ended is not changed."""
    caller.check(Scope.WRITE, job.gallery)
    cancelled = state.jobs.cancel(job.id)
    state.audit.record(caller.key_id, "job.cancel", job.gallery, {"job": job.id})
    return to_job_status(state, cancelled)


@router.get("/{job}/failures", summary="List the failures of a job", responses=problems(404))
def list_failures(job: VisibleJob, state: StateDep, query: Annotated[PageQuery, Query()]) -> JobFailuresPage:
    """Return the entries of a job that failed and why, oldest first."""
    found = state.jobs.failures(job.id, limit=query.limit + 1, after=decode_number_cursor(query.cursor))
    failures, next_cursor = split_page(found, query.limit, lambda failure: str(failure.number))
    return JobFailuresPage(
        failures=[JobFailure(name=failure.name, error=failure.reason) for failure in failures], next_cursor=next_cursor
    )


def to_job_status(state: AppState, job: Job) -> JobStatus:
    """Convert a job, adding its rate and the expected time until it ends."""
    rate = state.jobs.rate(job)
    remaining = None if job.total is None or job.state.ended else max(0, job.total - job.processed)
    derived: dict[str, Any] = {
        "rate": rate,
        "eta_s": None if remaining is None or not rate else remaining / rate,
        "ignored": job.ignored.total,
        "ignored_by_reason": job.ignored.to_json(),
        "failed_by_reason": job.failures_by_reason.to_json(),
    }
    return JobStatus(**{name: getattr(job, name) for name in JobStatus.model_fields.keys() - derived.keys()}, **derived)
