"""The command that lists, follows and cancels jobs of the server."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vireid import DEFAULT_URL
from vireid.cli.connection import AsJson, Key, Url, connected
from vireid.cli.console import print_json, print_json_list, print_table, stop
from vireid.cli.entry_report import print_failures, print_ignored, require_nothing_hidden

if TYPE_CHECKING:
    from vireid.client import Client, JobFailure, JobStatus

__all__ = ["app", "follow"]

_MAX_JOBS = 100

app = typer.Typer()


@app.command()
def jobs(
    job_id: Annotated[str | None, typer.Argument(metavar="ID", help="Id of a job; without: list all jobs.")] = None,
    cancel: Annotated[bool, typer.Option("--cancel", help="Cancel the job; what it has done stays.")] = False,
    state: Annotated[
        Literal["queued", "running", "succeeded", "failed", "cancelled"] | None,
        typer.Option(help="List only jobs in this state."),
    ] = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """List jobs, or follow or cancel one."""
    from vireid.client import JobState

    if cancel and job_id is None:
        stop("--cancel needs the id of a job", 2)
    with connected(url, key) as client:
        if job_id is not None:
            follow(client, client.cancel_job(job_id) if cancel else client.job(job_id), as_json=as_json)
            return
        found = client.jobs(None if state is None else JobState(state))
        if as_json:
            print_json_list("jobs", islice(found, _MAX_JOBS))
            return
        columns = ("id", "kind", "gallery", "state", "of", "done", "there", "failed", "left")
        print_table(columns, _rows(islice(found, _MAX_JOBS)), copied=("id",))


def follow(client: Client, job: JobStatus, *, as_json: bool = False) -> None:
    """Watch a job until it has ended and report it; with ``as_json`` only its last status is printed.

    The exit code is 1 where it or an entry failed, or a folder that may hold crops was not read.
    """
    from vireid.cli.progress import count_progress

    try:
        with count_progress("entries") as progress:
            task = progress.add_task(job.kind, total=None)
            for update in client.watch(job.id):
                job = update
                progress.update(task, description=job.state, completed=job.processed, total=job.total)
    except KeyboardInterrupt:
        typer.echo(f"the job continues; vireid jobs {job.id} --cancel ends it", err=True)
        raise typer.Exit(130) from None
    if as_json:
        print_json(job)
    else:
        _report(job, client.job_failures(job.id) if job.failed else ())
    if job.state == "failed":
        stop(job.error or "the job failed", 1)
    if job.failed:
        raise typer.Exit(1)
    require_nothing_hidden(job.ignored_by_reason)


def _report(job: JobStatus, failures: Iterable[JobFailure]) -> None:
    gallery = "" if job.gallery is None else f"{job.gallery}: "
    replaced = f" ({job.replaced:,} replaced)" if job.replaced else ""
    typer.echo(
        f"{gallery}{job.state}, {job.done:,} done{replaced}, {job.skipped:,} there already, {job.failed:,} failed"
    )
    if job.failed:
        named = ((failure.name, failure.error.detail) for failure in failures)
        print_failures(named, job.failed_by_reason, f", under /v1/jobs/{job.id}/failures")
    print_ignored(job.ignored_by_reason)


def _rows(jobs: Iterable[JobStatus]) -> Iterator[Sequence[str]]:
    for job in jobs:
        total = "" if job.total is None else f"{job.total:,}"
        left = "" if job.eta_s is None else f"{job.eta_s:,.0f} s"
        counts = (f"{job.done:,}", f"{job.skipped:,}", f"{job.failed:,}")
        yield job.id, job.kind, job.gallery or "", job.state, total, *counts, left
