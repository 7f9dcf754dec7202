"""Bulk imports: an upload or a folder becomes a job."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from server.api.auth import Caller, Writer
from server.api.bodies import JSON, NDJSON, documented, media_type, read_json
from server.api.bound import NamedGallery, engine_of
from server.api.errors import BodyTypeUnsupported, invalid, problems
from server.api.jobs import job_facts
from server.api.schemas import ImportDirectory, ImportOptions, JobFacts
from server.api.service import Service, ServiceDep
from server.errors import EntryRejected, ModelMismatch, StorageFull
from server.fields import Wire
from server.gallery.types import Gallery
from server.jobs.imports.directory import below_a_root
from server.jobs.imports.kind import BODY, IMPORT, Format, ImportParameters
from server.jobs.imports.pattern import PathPattern
from server.jobs.runner import Draft
from server.jobs.types import Job

__all__ = ["PATH", "receive", "router", "submit"]

PATH = re.compile(r"/v1/galleries/[^/]+/(imports|restore)")
"""Where bodies may be as large as imports."""

_FORMATS: Mapping[str, Format] = {
    "application/x-tar": Format.TAR,
    "application/gzip": Format.TAR,
    "application/zip": Format.ZIP,
    NDJSON: Format.NDJSON,
    "application/vnd.apache.parquet": Format.PARQUET,
    JSON: Format.DIRECTORY,
}
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_BUFFER = 2**20
_SYNC_EVERY = 256 * 2**20

router = APIRouter(prefix="/v1/galleries/{gallery}/imports", tags=["jobs"])


def _bodies() -> dict[str, Any]:
    body = documented({JSON: ImportDirectory})
    body["requestBody"]["content"] |= {kind: _BINARY for kind in _FORMATS if kind != JSON}
    return body


@router.post("", status_code=202, responses=problems(404, 409, 413, 415, 503, 507), openapi_extra=_bodies())
async def add_import(
    request: Request,
    gallery: NamedGallery,
    service: ServiceDep,
    caller: Writer,
    options: Annotated[ImportOptions, Query()],
    response: Response,
) -> JobFacts:
    """Import crops (tar, tar.gz, zip, or a folder of the server) or ready-made vectors (NDJSON, Parquet).

    The answer comes when the whole body is on the disk; the job does the rest, and survives a restart. The same upload
    again adds nothing twice.
    """
    form = _FORMATS.get(media_type(request))
    if form is None:
        raise BodyTypeUnsupported(list(_FORMATS))
    bound = await run_in_threadpool(service.galleries.get, gallery)
    directory: Path | None = None
    if form is Format.DIRECTORY:
        body = await read_json(request, ImportDirectory)
        directory = await run_in_threadpool(_allowed, body.directory, service.settings.import_roots)
        options = options.model_copy(update={"pattern": body.pattern or options.pattern})
    await run_in_threadpool(_check, service, bound, form, options)
    with service.jobs.draft() as draft:
        if directory is None:
            await receive(request, draft.folder / BODY)
        parameters = ImportParameters(
            format=form,
            created_at=bound.created_at,
            fingerprint=bound.fingerprint,
            modality=options.modality,
            pattern=options.pattern,
            directory=directory,
        )
        job = await run_in_threadpool(submit, service, caller, draft, IMPORT, bound.name, parameters)
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return job_facts(service, job)


def _check(service: Service, gallery: Gallery, form: Format, options: ImportOptions) -> None:
    """Refuse what no entry could fulfil, before the upload."""
    if options.pattern is not None:
        if not form.of_images:
            raise invalid("pattern", "goes with images only")
        PathPattern(options.pattern)
    if options.fingerprint not in (None, gallery.fingerprint):
        raise ModelMismatch(gallery.name, gallery.fingerprint, options.fingerprint or "")
    if form.of_images:
        engine_of(service, gallery)


def _allowed(directory: str, roots: tuple[Path, ...]) -> Path:
    try:
        return below_a_root(Path(directory), roots)
    except EntryRejected as error:
        raise invalid("directory", error.reason) from None


async def receive(request: Request, path: Path) -> None:
    """Write the body to a new file, in constant memory; it is on the disk when this returns.

    Raises:
        StorageFull: it does not fit there.
    """
    try:
        if int(request.headers.get("content-length", 0)) > shutil.disk_usage(path.parent).free:
            raise StorageFull
        with path.open("xb", buffering=_BUFFER) as file:
            unsynced = 0
            async for block in request.stream():
                await run_in_threadpool(file.write, block)
                unsynced += len(block)
                if unsynced >= _SYNC_EVERY:  # in the end nobody waits for gigabytes to reach the disk
                    await run_in_threadpool(_sync, file)
                    unsynced = 0
            await run_in_threadpool(_sync, file)
            await run_in_threadpool(_sync_names, path.parent)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull from error
        raise


def _sync(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_names(folder: Path) -> None:
    for named in (folder, folder.parent):
        descriptor = os.open(named, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def submit(service: Service, caller: Caller, draft: Draft, kind: str, gallery: str, parameters: Wire) -> Job:
    """Queue a job, and record that it was asked for."""
    job = draft.submit(kind, gallery, parameters.model_dump(mode="json"), caller.key_id)
    service.audit.record(caller.key_id, "job.create", gallery, {"job": job.id, "kind": job.kind})
    return job
