"""A whole gallery as one file, to keep or to take elsewhere."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack

import anyio
from fastapi import APIRouter
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from server.api.auth import Admin
from server.api.bound import NamedGallery
from server.api.errors import problems
from server.api.service import Service, ServiceDep
from server.gallery.portable import snapshot

__all__ = ["router"]

TAR = "application/x-tar"

router = APIRouter(prefix="/v1/galleries/{gallery}/snapshot", tags=["galleries"])


@router.get(
    "",
    response_class=StreamingResponse,
    responses=problems(404, 503) | {200: {"content": {TAR: {}}, "description": "The snapshot"}},
)
async def take_snapshot(gallery: NamedGallery, service: ServiceDep, caller: Admin) -> StreamingResponse:
    """The gallery with everything in it as one file, checksummed, all of one moment. Needs the scope `admin`.

    It is sent while it is made. One that breaks off lacks its last member, `SHA256SUMS`, and cannot be restored.
    """
    stack = ExitStack()
    try:
        pieces = await run_in_threadpool(_opened, service, gallery, stack)
        detail = {"items": (await run_in_threadpool(service.galleries.get, gallery)).items}
        await run_in_threadpool(service.audit.record, caller.key_id, "gallery.snapshot", gallery, detail)
    except BaseException:
        stack.close()
        raise
    headers = {"Content-Disposition": f'attachment; filename="{gallery}.tar"'}
    return StreamingResponse(_sent(pieces, stack), media_type=TAR, headers=headers)


def _opened(service: Service, gallery: str, stack: ExitStack) -> Iterator[bytes]:
    found, items = stack.enter_context(service.galleries.dump(gallery))
    return snapshot(found, items)


async def _sent(pieces: Iterator[bytes], stack: ExitStack) -> AsyncIterator[bytes]:
    """Sends piece by piece, and lets go of the store however that ends: as long as it reads, its log must grow."""
    try:
        while (piece := await run_in_threadpool(next, pieces, None)) is not None:
            yield piece
    finally:
        with anyio.CancelScope(shield=True):
            await run_in_threadpool(stack.close)
