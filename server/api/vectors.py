"""Adding precomputed embeddings to a gallery."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from server.api.app_state import AppState, StateDep
from server.api.auth import Caller, Writer
from server.api.conversion import from_item_fields
from server.api.dependencies import NewIds, ResolvedGallery
from server.api.errors import BodyTypeUnsupported, problems
from server.api.item_writes import store, validated, write_response
from server.api.request_parsing import JSON, NDJSON, media_type, request_body
from server.api.vector_entries import json_entries, longest_entry, ndjson_entries
from server.domain.errors import ModelMismatch, ServiceError
from server.domain.fields import content_of, unit_vector
from server.domain.types import Gallery, NewItem
from server.domain.validation import invalid
from vireid.schemas.items import VectorFields, VectorItems, VectorOrigin, WriteResults

__all__ = ["router"]

_Entries = Callable[[int], Iterator[object]]  # of an entry's largest size in bytes
_READERS: Mapping[str, Callable[[bytes, int], Iterator[object]]] = {JSON: json_entries, NDJSON: ndjson_entries}

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
    if media not in _READERS:
        raise BodyTypeUnsupported([JSON, NDJSON])
    entries = partial(_READERS[media], await request.body())
    return write_response(await run_in_threadpool(_add, state, caller, gallery, entries, origin.fingerprint, new_ids))


def _add(
    state: AppState, caller: Caller, name: str, entries: _Entries, fingerprint: str | None, new_ids: NewIds
) -> WriteResults:
    gallery = state.galleries.catalog.get(name)
    if fingerprint is not None and fingerprint != gallery.fingerprint:
        raise ModelMismatch(name, gallery.fingerprint, fingerprint)
    new: dict[int, NewItem] = {}
    failed: dict[int, ServiceError] = {}
    for index, fields in validated(entries(longest_entry(gallery.dimension)), VectorFields):
        try:
            if isinstance(fields, ServiceError):
                raise fields
            new[index] = _new_item(gallery, fields, index, new_ids)
        except ServiceError as error:
            failed[index] = error
    if not new and not failed:
        raise invalid("items", "must have at least 1 entries")
    return store(state, caller, name, new, gallery.fingerprint, failed)


def _new_item(gallery: Gallery, fields: VectorFields, index: int, new_ids: NewIds) -> NewItem:
    if len(fields.vector) != gallery.dimension:
        raise ModelMismatch(gallery.name, f"{gallery.dimension} numbers", f"{len(fields.vector)}")
    vector = unit_vector(fields.vector)
    content = content_of(vector)
    item = from_item_fields(fields, fields.modality, id=new_ids.of(index, content), content=content)
    return NewItem(item, vector)
