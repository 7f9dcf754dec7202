"""Long work: its state, its failures, its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from fastapi.sse import EventSourceResponse
from starlette.concurrency import run_in_threadpool

from server.access import Scope
from server.api.auth import Reader
from server.api.errors import problems
from server.api.paging import after, number_after, page
from server.api.schemas import JobFacts, JobFailure, JobFailuresPage, JobId, JobSelection, JobsPage, Page
from server.api.service import Service, ServiceDep
from server.errors import JobNotFound
from server.jobs.types import Job

__all__ = ["job_facts", "router"]

_EVENTS_S = 0.2  # between two events of a stream

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


def _visible(job: JobId, service: ServiceDep, caller: Reader) -> Job:
    """The job, if the caller's key covers its gallery; one of no gallery needs a key for every gallery."""
    found = service.jobs.get(job)
    if caller.galleries is not None and found.gallery not in caller.galleries:
        raise JobNotFound(job)
    return found


Visible = Annotated[Job, Depends(_visible)]


@router.get("", responses=problems())
def list_jobs(service: ServiceDep, caller: Reader, wanted: Annotated[JobSelection, Query()]) -> JobsPage:
    """The jobs of the galleries that the key covers, newest first."""
    found = service.jobs.list(
        limit=wanted.limit + 1, after=after(wanted.cursor), state=wanted.state, galleries=caller.galleries
    )
    kept, following = page(found, wanted.limit, lambda job: job.id)
    return JobsPage(jobs=[job_facts(service, job) for job in kept], next_cursor=following)


@router.get("/{job}", responses=problems(404))
def get_job(job: Visible, service: ServiceDep) -> JobFacts:
    """One job."""
    return job_facts(service, job)


@router.get("/{job}/events", response_class=EventSourceResponse, responses=problems(404))
async def job_events(job: Visible, service: ServiceDep) -> AsyncIterator[JobFacts]:
    """The job now and as it changes, as server-sent events, five in a second at most; ends with the job, or when the
    server stops."""
    changed, loop = asyncio.Event(), asyncio.get_running_loop()
    with service.jobs.watching(job.id, lambda: loop.call_soon_threadsafe(changed.set)):
        while True:
            changed.clear()
            now = await run_in_threadpool(service.jobs.get, job.id)
            yield job_facts(service, now)
            if now.state.ended or service.jobs.stopped:
                return
            await changed.wait()
            await asyncio.sleep(_EVENTS_S)  # an import makes twenty steps a second, each of which costs an event's time


@router.post("/{job}/cancel", responses=problems(404, 507))
def cancel_job(job: Visible, service: ServiceDep, caller: Reader) -> JobFacts:
    """End a job where it stands; what it has done stays. One that has ended stays as it is."""
    caller.check(Scope.WRITE, job.gallery)
    cancelled = service.jobs.cancel(job.id)
    service.audit.record(caller.key_id, "job.cancel", job.gallery, {"job": job.id})
    return job_facts(service, cancelled)


@router.get("/{job}/failures", responses=problems(404))
def list_failures(job: Visible, service: ServiceDep, wanted: Annotated[Page, Query()]) -> JobFailuresPage:
    """The entries of a job that failed, with reasons, oldest first."""
    found = service.jobs.failures(job.id, limit=wanted.limit + 1, after=number_after(wanted.cursor))
    kept, following = page(found, wanted.limit, lambda failure: str(failure.number))
    return JobFailuresPage(
        failures=[JobFailure(name=failure.name, error=failure.reason) for failure in kept], next_cursor=following
    )


def job_facts(service: Service, job: Job) -> JobFacts:
    """A job as it goes over the wire, with its pace."""
    rate = service.jobs.rate(job)
    left = None if job.total is None or job.state.ended else max(0, job.total - job.processed)
    return JobFacts(
        **{name: getattr(job, name) for name in JobFacts.model_fields.keys() - {"rate", "eta_s"}},
        rate=rate,
        eta_s=None if left is None or not rate else left / rate,
    )
