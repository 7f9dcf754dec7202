"""Items of a gallery: add by image, list, read, change, delete."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from server.api.auth import Searcher, Writer
from server.api.bodies import FORM, documented, form
from server.api.bound import NamedGallery, engine_of
from server.api.errors import InvalidRequest, invalid, problems
from server.api.paging import after, page
from server.api.schemas import (
    MAX_PAGE,
    Deleted,
    FieldError,
    ItemChanges,
    ItemDetails,
    ItemFields,
    ItemFilter,
    ItemId,
    ItemSelection,
    ItemsForm,
    ItemsPage,
    Receipt,
    Written,
)
from server.api.service import ServiceDep
from server.api.uploads import check_count, embed
from server.api.writes import parse, store, written
from server.embedding.batcher import Priority
from server.embedding.decode import thumbnail_type
from server.embedding.engine import Detail, Embedding
from server.gallery.types import Filter, NewItem
from server.jobs.types import JobState

__all__ = ["router"]

router = APIRouter(prefix="/v1/galleries/{gallery}/items", tags=["items"])


@router.post(
    "",
    status_code=201,
    response_model=Written,
    responses=problems(404, 409, 413, 415, 429, 503, 507)
    | {207: {"model": Written, "description": "Some items failed, the others were stored"}},
    openapi_extra=documented({FORM: ItemsForm}),
)
async def add_items(
    request: Request,
    gallery: NamedGallery,
    service: ServiceDep,
    caller: Writer,
    body: Annotated[ItemsForm, Depends(form(ItemsForm))],
) -> Response:
    """Add crops, each with its fields. The same id again replaces; a bad entry fails alone."""
    check_count(body.images, service.settings.max_images)
    if len(body.items) != len(body.images):
        raise invalid(
            "items", f"must have one entry for each of the {len(body.images)} images; found {len(body.items)}"
        )
    bound = await run_in_threadpool(service.galleries.get, gallery)
    engine = engine_of(service, bound)
    fit, failed = parse(body.items, ItemFields)
    with service.admission.admit(len(fit)):
        outcome = await embed(
            request,
            engine,
            [body.images[index] for index in fit],
            [fields.modality.stated for fields in fit.values()],
            Priority.IMPORT,
            details=frozenset(Detail),
        )
        new: dict[int, NewItem] = {}
        for (index, fields), result in zip(fit.items(), outcome.results, strict=True):
            if isinstance(result, Embedding):
                item = fields.item(result.modality, content=result.content, warnings=result.warnings)
                new[index] = NewItem(item, result.vector, result.thumbnail)
            else:
                failed[index] = result
        answer = await run_in_threadpool(store, service, caller, gallery, new, bound.fingerprint, failed)
    return written(answer)


@router.get("", responses=problems(404))
def list_items(
    gallery: NamedGallery, service: ServiceDep, _caller: Searcher, selection: Annotated[ItemSelection, Query()]
) -> ItemsPage:
    """The items that pass the filter, by id."""
    found = service.galleries.items(gallery, selection.where, limit=selection.limit + 1, after=after(selection.cursor))
    kept, following = page(found, selection.limit, lambda item: item.id)
    return ItemsPage(items=[ItemDetails.of(item) for item in kept], next_cursor=following)


@router.delete("", responses=problems(404))
def delete_items(
    gallery: NamedGallery, service: ServiceDep, caller: Writer, selection: Annotated[ItemFilter, Query()]
) -> Deleted:
    """Delete every item that passes the filter, for good; at least one field must be given."""
    if selection.where == Filter():
        raise InvalidRequest(
            [FieldError(field=name, detail="or another filter is required") for name in ItemFilter.model_fields]
        )
    under_way = [
        job
        for state in (JobState.RUNNING, JobState.QUEUED)
        for job in service.jobs.list(limit=MAX_PAGE, state=state, galleries={gallery})
    ]
    erased = service.galleries.erase(gallery, selection.where, caller.key_id, jobs=len(under_way))
    receipt = Receipt.of(erased)
    asked = selection.model_dump(mode="json", exclude_defaults=True)
    detail = asked | {"deleted": receipt.items, "receipt": receipt.id}
    service.audit.record(caller.key_id, "items.delete", gallery, detail)
    return Deleted(deleted=receipt.items, receipt=receipt)


@router.get("/{item}", responses=problems(404))
def get_item(gallery: NamedGallery, item: ItemId, service: ServiceDep, _caller: Searcher) -> ItemDetails:
    """One item."""
    return ItemDetails.of(service.galleries.item(gallery, item))


@router.patch("/{item}", responses=problems(404, 507))
def change_item(
    gallery: NamedGallery, item: ItemId, body: ItemChanges, service: ServiceDep, caller: Writer
) -> ItemDetails:
    """Change what is known of an item; its image and vector stay."""
    changes = {name: getattr(body, name) for name in body.model_fields_set}
    changed = service.galleries.update_item(gallery, item, changes)
    service.audit.record(caller.key_id, "items.update", gallery, {"item": item, "fields": sorted(changes)})
    return ItemDetails.of(changed)


@router.delete("/{item}", status_code=204, responses=problems(404))
def delete_item(gallery: NamedGallery, item: ItemId, service: ServiceDep, caller: Writer) -> None:
    """Delete an item with its vector and image, for good."""
    service.galleries.delete_item(gallery, item)
    service.audit.record(caller.key_id, "items.delete", gallery, {"item": item, "deleted": 1})


@router.get(
    "/{item}/image",
    response_class=Response,
    responses=problems(404) | {200: {"content": {"image/jpeg": {}, "image/webp": {}}, "description": "The thumbnail"}},
)
def get_image(gallery: NamedGallery, item: ItemId, service: ServiceDep, _caller: Searcher) -> Response:
    """The thumbnail of an item, JPEG; WebP where an earlier build stored it."""
    image = service.galleries.thumbnail(gallery, item)
    return Response(image, media_type=thumbnail_type(image))
