"""Ready-made embeddings into a gallery."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from server.api.auth import Caller, Writer
from server.api.bodies import JSON, NDJSON, documented, media_type, read_json
from server.api.bound import NamedGallery
from server.api.errors import BodyTypeUnsupported, invalid, problems
from server.api.schemas import VectorFields, VectorItems, VectorOrigin, Written
from server.api.service import Service, ServiceDep
from server.api.writes import parse, store, written
from server.errors import ModelMismatch, ServiceError
from server.fields import content_of, unit_vector
from server.gallery.types import Gallery, NewItem

__all__ = ["router"]

router = APIRouter(prefix="/v1/galleries/{gallery}/vectors", tags=["items"])


@router.post(
    "",
    status_code=201,
    response_model=Written,
    responses=problems(404, 409, 413, 415, 507)
    | {207: {"model": Written, "description": "Some items failed, the others were stored"}},
    openapi_extra=documented({JSON: VectorItems, NDJSON: VectorFields}),
)
async def add_vectors(
    request: Request,
    gallery: NamedGallery,
    service: ServiceDep,
    caller: Writer,
    origin: Annotated[VectorOrigin, Query()],
) -> Response:
    """Add embeddings that the gallery's model made elsewhere: JSON, or NDJSON with one item a line."""
    kind = media_type(request)
    if kind == JSON:
        entries: list[object] = (await read_json(request, VectorItems)).items
    elif kind == NDJSON:
        entries = [line for line in (await request.body()).splitlines() if line.strip()]
    else:
        raise BodyTypeUnsupported([JSON, NDJSON])
    if not entries:
        raise invalid("items", "must have at least 1 entries")
    return written(await run_in_threadpool(_add, service, caller, gallery, entries, origin.fingerprint))


def _add(service: Service, caller: Caller, name: str, entries: list[object], fingerprint: str | None) -> Written:
    gallery = service.galleries.get(name)
    if fingerprint is not None and fingerprint != gallery.fingerprint:
        raise ModelMismatch(name, gallery.fingerprint, fingerprint)
    fit, failed = parse(entries, VectorFields)
    new: dict[int, NewItem] = {}
    for index, fields in fit.items():
        try:
            new[index] = _new_item(gallery, fields)
        except ServiceError as error:
            failed[index] = error
    return store(service, caller, name, new, gallery.fingerprint, failed)


def _new_item(gallery: Gallery, fields: VectorFields) -> NewItem:
    if len(fields.vector) != gallery.dimension:
        raise ModelMismatch(gallery.name, f"{gallery.dimension} numbers", f"{len(fields.vector)}")
    vector = unit_vector(fields.vector)
    return NewItem(fields.item(fields.modality, content=content_of(vector)), vector)
