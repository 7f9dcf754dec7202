"""Adding precomputed embeddings to a gallery."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from server.api.app_state import AppState, StateDep
from server.api.auth import Caller, Writer
from server.api.conversion import from_item_fields
from server.api.dependencies import NewIds, ResolvedGallery
from server.api.errors import BodyTypeUnsupported, problems
from server.api.item_writes import parse, store, write_response
from server.api.request_parsing import JSON, NDJSON, media_type, read_json, request_body
from server.domain.errors import ModelMismatch, ServiceError
from server.domain.fields import content_of, unit_vector
from server.domain.types import Gallery, NewItem
from server.domain.validation import invalid
from vireid.schemas.items import VectorFields, VectorItems, VectorOrigin, WriteResults

__all__ = ["router"]

router = APIRouter(prefix="/v1/galleries/{gallery}/vectors", tags=["items"])


@router.post(
    "",
    status_code=201,
    summary="Add precomputed embeddings",
    response_model=WriteResults,
    responses=problems(404, 409, 413, 415, 507)
    | {207: {"model": WriteResults, "description": "Some items failed, the others were stored"}},
    openapi_extra=request_body({JSON: VectorItems, NDJSON: VectorFields}),
)
async def add_vectors(
    request: Request,
    gallery: ResolvedGallery,
    state: StateDep,
    caller: Writer,
    new_ids: Annotated[NewIds, Depends()],
    origin: Annotated[VectorOrigin, Query()],
) -> Response:
    """Add embeddings that the gallery's model made elsewhere, as JSON or as NDJSON with one item per line."""
    media = media_type(request)
    if media == JSON:
        entries: list[object] = (await read_json(request, VectorItems)).items
    elif media == NDJSON:
        entries = [line for line in (await request.body()).splitlines() if line.strip()]
    else:
        raise BodyTypeUnsupported([JSON, NDJSON])
    if not entries:
        raise invalid("items", "must have at least 1 entries")
    return write_response(await run_in_threadpool(_add, state, caller, gallery, entries, origin.fingerprint, new_ids))


def _add(
    state: AppState, caller: Caller, name: str, entries: list[object], fingerprint: str | None, new_ids: NewIds
) -> WriteResults:
    gallery = state.galleries.catalog.get(name)
    if fingerprint is not None and fingerprint != gallery.fingerprint:
        raise ModelMismatch(name, gallery.fingerprint, fingerprint)
    valid, failed = parse(entries, VectorFields)
    new: dict[int, NewItem] = {}
    for index, fields in valid.items():
        try:
            new[index] = _new_item(gallery, fields, index, new_ids)
        except ServiceError as error:
            failed[index] = error
    return store(state, caller, name, new, gallery.fingerprint, failed)


def _new_item(gallery: Gallery, fields: VectorFields, index: int, new_ids: NewIds) -> NewItem:
    if len(fields.vector) != gallery.dimension:
        raise ModelMismatch(gallery.name, f"{gallery.dimension} numbers", f"{len(fields.vector)}")
    vector = unit_vector(fields.vector)
    content = content_of(vector)
    item = from_item_fields(fields, fields.modality, id=new_ids.of(index, content), content=content)
    return NewItem(item, vector)
