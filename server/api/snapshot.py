"""Archive of a gallery as one file."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack

import anyio
from fastapi import APIRouter
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from server.api.app_state import AppState, StateDep
from server.api.auth import Admin
from server.api.dependencies import ResolvedGallery
from server.api.errors import problems
from server.api.request_parsing import TAR
from server.gallery.archive import snapshot

__all__ = ["router"]

router = APIRouter(prefix="/v1/galleries/{gallery}/snapshot", tags=["galleries"])


@router.get(
    "",
    summary="Download an archive of a gallery",
    response_class=StreamingResponse,
    responses=problems(404, 503) | {200: {"content": {TAR: {}}, "description": "The snapshot"}},
)
async def take_snapshot(gallery: ResolvedGallery, state: StateDep, caller: Admin) -> StreamingResponse:
    """Return the whole gallery as one file with checksums, consistent as of one point in time.

    Requires the scope `admin`. The file is made while it is sent: one that is cut off lacks its last member,
    `SHA256SUMS`, and cannot be restored.
    """
    stack = ExitStack()
    try:
        blocks = await run_in_threadpool(_open_archive, state, gallery, stack)
        detail = {"items": (await run_in_threadpool(state.galleries.catalog.get, gallery)).items}
        await run_in_threadpool(state.audit.record, caller.key_id, "gallery.snapshot", gallery, detail)
    except BaseException:
        stack.close()
        raise
    headers = {"Content-Disposition": f'attachment; filename="{gallery}.tar"'}
    return StreamingResponse(_stream(blocks, stack), media_type=TAR, headers=headers)


def _open_archive(state: AppState, gallery: str, stack: ExitStack) -> Iterator[bytes]:
    found, items = stack.enter_context(state.galleries.query.dump(gallery))
    return snapshot(found, items)


async def _stream(blocks: Iterator[bytes], stack: ExitStack) -> AsyncIterator[bytes]:
    """Yield the blocks, then release the store in any case: its log grows as long as it is being read."""
    try:
        while (block := await run_in_threadpool(next, blocks, None)) is not None:
            yield block
    finally:
        with anyio.CancelScope(shield=True):
            await run_in_threadpool(stack.close)
