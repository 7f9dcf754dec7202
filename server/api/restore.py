"""Restoring a gallery from an archive."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from server.api.app_state import AppState, StateDep
from server.api.auth import Writer
from server.api.dependencies import GalleryName
from server.api.errors import BodyTypeUnsupported, problems
from server.api.job_submission import store_body, submit
from server.api.jobs import to_job_status
from server.api.request_parsing import TAR, media_type
from server.domain.errors import AliasExists, GalleryExists, GalleryNotFound
from server.jobs.imports.handler import BODY
from server.jobs.restore import RESTORE
from vireid.schemas.jobs import JobStatus

__all__ = ["router"]

_REQUEST_BODY = {
    "requestBody": {"required": True, "content": {TAR: {"schema": {"type": "string", "format": "binary"}}}}
}

router = APIRouter(prefix="/v1/galleries/{gallery}/restore", tags=["jobs"])


@router.post(
    "",
    status_code=202,
    summary="Restore a gallery",
    responses=problems(409, 413, 415, 503, 507),
    openapi_extra=_REQUEST_BODY,
)
async def restore_gallery(
    request: Request, gallery: GalleryName, state: StateDep, caller: Writer, response: Response
) -> JobStatus:
    """Create a gallery of this name from an archive, whatever the name of the original was.

    The response is sent when the whole file is stored on disk. The job verifies every checksum; the gallery appears
    when it is complete. Retention counts from the time when the items were first stored.
    """
    if media_type(request) != TAR:
        raise BodyTypeUnsupported([TAR])
    await run_in_threadpool(_check_name_is_free, state, gallery)
    with state.jobs.pending() as pending:
        await store_body(request, pending.folder / BODY, state.encryption)
        job = await run_in_threadpool(submit, state, caller, pending, RESTORE, gallery, {})
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return to_job_status(state, job)


def _check_name_is_free(state: AppState, name: str) -> None:
    if name in state.galleries.catalog.aliases():
        raise AliasExists(name)
    try:
        state.galleries.catalog.get(name)
    except GalleryNotFound:
        return
    raise GalleryExists(name)
