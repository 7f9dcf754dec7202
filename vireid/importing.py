"""The commands for work that the server does by itself: start an import, watch and end jobs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table
from rich.text import Text

from vireid.client import DEFAULT_URL, Client, ImportKind, Job, JobState, import_kind
from vireid.indexing import find_images
from vireid.packing import MANIFESTS, packed, packed_size
from vireid.terminal import Gallery, Key, Light, Url, connected, counting, err, out, require_gallery, stop, table

__all__ = ["app", "blocks", "follow", "sending"]

_PANEL = "Serving"
_SHOWN_FAILURES = 50
_SHOWN_JOBS = 100
_BLOCK = 2**18

app = typer.Typer()


@app.command("import", rich_help_panel=_PANEL)
def import_(
    source: Annotated[
        Path, typer.Argument(metavar="SOURCE", help="Folder of crops, or a .tar, .tar.gz, .zip, .ndjson or .parquet.")
    ],
    gallery: Gallery,
    modality: Light = "auto",
    pattern: Annotated[
        str | None,
        typer.Option(
            help="RE2 expression; its named groups (identity, camera, captured_at, id, modality), searched for in each "
            "crop's path, are what is known of it."
        ),
    ] = None,
    fingerprint: Annotated[str | None, typer.Option(help="Of the model that made ready-made vectors.")] = None,
    on_server: Annotated[
        bool, typer.Option("--on-server", help="SOURCE is a folder of the server's machine, below an import root.")
    ] = False,
    create: Annotated[bool, typer.Option(help="Create the gallery if it is missing.")] = True,
    wait: Annotated[bool, typer.Option(help="Wait for the end and report it.")] = True,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Upload crops or vectors in one go; the server does the rest, even if it is restarted.

    A manifest.csv or manifest.jsonl among the crops says what is known of each (path, id, identity, modality, camera,
    captured_at, attributes). Run it again after an interruption: what is there already is skipped.
    """
    files = [] if on_server else _files(source)
    with connected(url, key) as client:
        require_gallery(client, gallery, create)
        if on_server:
            job = client.import_directory(gallery, str(source), modality=modality, pattern=pattern)
        else:
            kind: ImportKind = "tar" if source.is_dir() else import_kind(source)
            try:
                size = packed_size(source, files) if source.is_dir() else source.stat().st_size
                with sending(size) as sent:
                    body = sent(packed(source, files) if source.is_dir() else blocks(source))
                    job = client.import_file(
                        gallery, body, kind, modality=modality, pattern=pattern, fingerprint=fingerprint
                    )
            except OSError as error:
                stop(str(error), 1)
        if wait:
            follow(client, job)
        else:
            out.print(f"{job.id} is {job.state}; vireid jobs {job.id} tells how it goes", soft_wrap=True)


@app.command(rich_help_panel=_PANEL)
def jobs(
    job_id: Annotated[str | None, typer.Argument(metavar="[ID]", help="Id of a job; all jobs without.")] = None,
    cancel: Annotated[bool, typer.Option("--cancel", help="End the job where it stands.")] = False,
    state: Annotated[JobState | None, typer.Option(help="Only jobs in this state.")] = None,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """List the jobs of the server, or follow one until it ends."""
    if cancel and job_id is None:
        stop("--cancel needs the id of a job", 2)
    with connected(url, key) as client:
        if job_id is None:
            out.print(_listed(islice(client.jobs(state), _SHOWN_JOBS)))
        else:
            follow(client, client.cancel_job(job_id) if cancel else client.job(job_id))


def _files(source: Path) -> list[Path]:
    """What is sent of a folder, or the one file."""
    try:
        if not source.is_dir():
            import_kind(source)
            source.stat()
            return [source]
    except (OSError, ValueError) as error:
        stop(str(error), 2)
    manifests = [path for path in source.rglob("*") if path.name in MANIFESTS]
    images = find_images(source)
    if not images:
        stop(f"there is no image below {source}", 1)
    return manifests + images


def blocks(file: Path) -> Iterator[bytes]:
    """The content of a file, block by block."""
    with file.open("rb") as body:
        while block := body.read(_BLOCK):
            yield block


@contextmanager
def sending(size: int) -> Iterator[Callable[[Iterable[bytes]], Iterator[bytes]]]:
    """Shows how much of ``size`` bytes is sent, of blocks that are passed through."""
    columns = (TextColumn("sending"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err) as progress:
        task = progress.add_task("sending", total=size)

        def sent(blocks: Iterable[bytes]) -> Iterator[bytes]:
            for block in blocks:
                yield block
                progress.advance(task, len(block))

        yield sent


def follow(client: Client, job: Job) -> None:
    """Watch a job to its end and report it; the exit code is 1 where anything failed."""
    try:
        with counting("entries") as progress:
            task = progress.add_task(job.kind, total=None)
            for now in client.watch(job.id):
                job = now
                progress.update(task, description=job.state, completed=job.processed, total=job.total)
    except KeyboardInterrupt:
        err.print(f"the job goes on; vireid jobs {job.id} --cancel ends it", soft_wrap=True)
        raise typer.Exit(130) from None
    where = "" if job.gallery is None else f"{job.gallery}: "
    out.print(
        f"{where}{job.state}, {job.done:,} done, {job.skipped:,} there already, {job.failed:,} failed", soft_wrap=True
    )
    if job.failed:
        shown = table("failed", "reason")
        for failure in islice(client.job_failures(job.id), _SHOWN_FAILURES):
            shown.add_row(Text(failure.name), Text(failure.error.reason))
        out.print(shown)
        if job.failed > _SHOWN_FAILURES:
            out.print(f"and {job.failed - _SHOWN_FAILURES:,} more, under /v1/jobs/{job.id}/failures", soft_wrap=True)
    if job.state is JobState.FAILED:
        stop(job.error or "the job failed", 1)
    if job.failed:
        raise typer.Exit(1)


def _listed(found: Iterable[Job]) -> Table:
    shown = table("id", "kind", "gallery", "state", "of", "done", "there", "failed", "left")
    shown.columns[0].no_wrap = True  # it is there to be copied
    for job in found:
        total = "" if job.total is None else f"{job.total:,}"
        left = "" if job.eta_s is None else f"{job.eta_s:,.0f} s"
        counts = (f"{job.done:,}", f"{job.skipped:,}", f"{job.failed:,}")
        shown.add_row(job.id, job.kind, job.gallery or "", job.state, total, *counts, left)
    return shown
