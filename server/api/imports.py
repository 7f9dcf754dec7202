"""Bulk imports of an upload or of a directory, as jobs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from server.api.app_state import AppState, StateDep
from server.api.auth import Writer
from server.api.dependencies import ResolvedGallery, engine_of
from server.api.errors import BodyTypeUnsupported, problems
from server.api.job_submission import store_body, submit
from server.api.jobs import to_job_status
from server.api.request_parsing import JSON, NDJSON, media_type, read_json, request_body
from server.domain.errors import EntryRejected, ModelMismatch
from server.domain.types import Gallery
from server.domain.validation import invalid
from server.jobs.imports.directory import below_a_root
from server.jobs.imports.handler import BODY, IMPORT, Format, ImportParameters
from server.jobs.imports.import_target import OnConflict
from server.jobs.imports.labels import zone_of
from server.jobs.imports.pattern import PathPattern
from vireid.schemas.imports import ImportDirectory, ImportOptions
from vireid.schemas.jobs import JobStatus

__all__ = ["router"]

_FORMATS: Mapping[str, Format] = {
    "application/x-tar": Format.TAR,
    "application/gzip": Format.TAR,
    "application/zip": Format.ZIP,
    NDJSON: Format.NDJSON,
    "application/vnd.apache.parquet": Format.PARQUET,
    JSON: Format.DIRECTORY,
}
_BINARY = {"schema": {"type": "string", "format": "binary"}}

router = APIRouter(prefix="/v1/galleries/{gallery}/imports", tags=["jobs"])


def _request_body() -> dict[str, Any]:
    body = request_body({JSON: ImportDirectory})
    body["requestBody"]["content"] |= {kind: _BINARY for kind in _FORMATS if kind != JSON}
    return body


@router.post(
    "",
    status_code=202,
    summary="Import crops or embeddings",
    responses=problems(404, 409, 413, 415, 503, 507),
    openapi_extra=_request_body(),
)
async def add_import(
    request: Request,
    gallery: ResolvedGallery,
    state: StateDep,
    caller: Writer,
    options: Annotated[ImportOptions, Query()],
    response: Response,
) -> JobStatus:
    """Import crops (tar, tar.gz, zip, or a directory of the server) or precomputed embeddings (NDJSON, Parquet).

    The response is sent when the whole body is stored on disk. The job processes it and continues after a restart of
    the server. Repeating an upload adds nothing twice.
    """
    format = _FORMATS.get(media_type(request))
    if format is None:
        raise BodyTypeUnsupported(list(_FORMATS))
    found = await run_in_threadpool(state.galleries.catalog.get, gallery)
    directory: Path | None = None
    follow_links = False
    if format is Format.DIRECTORY:
        body = await read_json(request, ImportDirectory)
        directory = await run_in_threadpool(_allowed_directory, body.directory, state.settings.import_roots)
        options = options.model_copy(update={"pattern": body.pattern or options.pattern})
        follow_links = body.follow_links
    await run_in_threadpool(_check, state, found, format, options)
    with state.jobs.pending() as pending:
        if directory is None:
            await store_body(request, pending.folder / BODY, state.encryption)
        parameters = ImportParameters(
            format=format,
            created_at=found.created_at,
            fingerprint=found.fingerprint,
            modality=options.modality,
            pattern=options.pattern,
            directory=directory,
            follow_links=follow_links,
            timezone=options.timezone,
            on_conflict=OnConflict(options.on_conflict),
        ).model_dump(mode="json")
        job = await run_in_threadpool(submit, state, caller, pending, IMPORT, found.name, parameters)
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return to_job_status(state, job)


def _check(state: AppState, gallery: Gallery, format: Format, options: ImportOptions) -> None:
    """Reject options that no entry could satisfy, before the upload."""
    if options.pattern is not None:
        if not format.of_images:
            raise invalid("pattern", "is allowed for images only")
        PathPattern(options.pattern)
    if options.timezone is not None:
        zone_of(options.timezone)
    if options.fingerprint not in (None, gallery.fingerprint):
        raise ModelMismatch(gallery.name, gallery.fingerprint, options.fingerprint or "")
    if format.of_images:
        engine_of(state, gallery)


def _allowed_directory(directory: str, roots: tuple[Path, ...]) -> Path:
    try:
        return below_a_root(Path(directory), roots)
    except EntryRejected as error:
        raise invalid("directory", error.reason) from None
