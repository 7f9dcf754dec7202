"""A snapshot back into a gallery."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from server.api.auth import Writer
from server.api.bodies import media_type
from server.api.errors import BodyTypeUnsupported, problems
from server.api.imports import receive, submit
from server.api.jobs import job_facts
from server.api.schemas import GalleryName, JobFacts, NoParameters
from server.api.service import Service, ServiceDep
from server.errors import AliasExists, GalleryExists, GalleryNotFound
from server.jobs.imports.kind import BODY
from server.jobs.restore import RESTORE

__all__ = ["router"]

TAR = "application/x-tar"

router = APIRouter(prefix="/v1/galleries/{gallery}/restore", tags=["jobs"])


def _body() -> dict[str, Any]:
    binary = {"schema": {"type": "string", "format": "binary"}}
    return {"requestBody": {"required": True, "content": {TAR: binary}}}


@router.post("", status_code=202, responses=problems(409, 413, 415, 503, 507), openapi_extra=_body())
async def restore_gallery(
    request: Request, gallery: GalleryName, service: ServiceDep, caller: Writer, response: Response
) -> JobFacts:
    """Make a new gallery of that name from a snapshot, whatever the original was called.

    The answer comes when the whole file is on the disk; the job checks every checksum, and the gallery appears when all
    of it is there. Items keep the time that retention counts from.
    """
    if media_type(request) != TAR:
        raise BodyTypeUnsupported([TAR])
    await run_in_threadpool(_require_free, service, gallery)
    with service.jobs.draft() as draft:
        await receive(request, draft.folder / BODY)
        job = await run_in_threadpool(submit, service, caller, draft, RESTORE, gallery, NoParameters())
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return job_facts(service, job)


def _require_free(service: Service, name: str) -> None:
    if name in service.galleries.aliases():
        raise AliasExists(name)
    try:
        service.galleries.get(name)
    except GalleryNotFound:
        return
    raise GalleryExists(name)
