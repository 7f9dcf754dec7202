"""Items of a gallery: add by image, list, read, change, delete."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from server.api.app_state import StateDep
from server.api.auth import Searcher, Writer
from server.api.conversion import from_filter, from_item_fields, to_item_details, to_receipt
from server.api.dependencies import ItemId, NewIds, ResolvedGallery, engine_of
from server.api.errors import problems
from server.api.item_writes import parse, store, write_response
from server.api.paging import decode_cursor, split_page
from server.api.request_parsing import FORM, form_body, request_body
from server.api.uploads import check_count, embed
from server.domain.types import Filter, NewItem
from server.domain.validation import FieldError, InvalidRequest, invalid
from server.embedding.batcher import Priority
from server.embedding.decode import thumbnail_type
from server.embedding.engine import Detail, Embedding
from server.jobs.types import JobState
from vireid.schemas.erasures import DeletionResult
from vireid.schemas.filters import Filter as FilterFields
from vireid.schemas.filters import FilterParameters
from vireid.schemas.items import (
    ItemChanges,
    ItemDetails,
    ItemFields,
    ItemSelection,
    ItemsForm,
    ItemsPage,
    WriteResults,
)
from vireid.schemas.paging import MAX_PAGE

__all__ = ["router"]

router = APIRouter(prefix="/v1/galleries/{gallery}/items", tags=["items"])


@router.post(
    "",
    status_code=201,
    summary="Add items",
    response_model=WriteResults,
    responses=problems(404, 409, 413, 415, 429, 503, 507)
    | {207: {"model": WriteResults, "description": "Some items failed, the others were stored"}},
    openapi_extra=request_body({FORM: ItemsForm}),
)
async def add_items(
    request: Request,
    gallery: ResolvedGallery,
    state: StateDep,
    caller: Writer,
    new_ids: Annotated[NewIds, Depends()],
    body: Annotated[ItemsForm, Depends(form_body(ItemsForm))],
) -> Response:
    """Add crops with their metadata.

    An item with the same id is replaced. An invalid item does not affect the others.
    """
    check_count(body.images, state.settings.max_images)
    if len(body.items) != len(body.images):
        raise invalid(
            "items", f"must have one entry for each of the {len(body.images)} images; found {len(body.items)}"
        )
    found = await run_in_threadpool(state.galleries.catalog.get, gallery)
    engine = engine_of(state, found)
    valid, failed = parse(body.items, ItemFields)
    images = [body.images[index] for index in valid]
    with state.admission.admit(images, caller.key_id):
        outcome = await embed(
            request,
            engine,
            images,
            [fields.modality.stated for fields in valid.values()],
            Priority.IMPORT,
            details=frozenset(Detail),
        )
        new: dict[int, NewItem] = {}
        for (index, fields), result in zip(valid.items(), outcome.results, strict=True):
            if isinstance(result, Embedding):
                id = new_ids.of(index, result.content)
                item = from_item_fields(
                    fields, result.modality, id=id, content=result.content, warnings=result.warnings
                )
                new[index] = NewItem(item, result.vector, result.thumbnail)
            else:
                failed[index] = result
        results = await run_in_threadpool(store, state, caller, gallery, new, found.fingerprint, failed)
    return write_response(results)


@router.get("", summary="List items", responses=problems(404))
def list_items(
    gallery: ResolvedGallery, state: StateDep, _caller: Searcher, selection: Annotated[ItemSelection, Query()]
) -> ItemsPage:
    """Return the items that pass the filter, by id."""
    where = from_filter(selection.filter())
    found = state.galleries.query.items(
        gallery, where, limit=selection.limit + 1, after=decode_cursor(selection.cursor)
    )
    total = state.galleries.query.count(gallery, where) if selection.count else None
    items, next_cursor = split_page(found, selection.limit, lambda item: item.id)
    return ItemsPage(items=[to_item_details(item) for item in items], next_cursor=next_cursor, total=total)


@router.delete("", summary="Delete items by filter", responses=problems(404))
def delete_items(
    gallery: ResolvedGallery, state: StateDep, caller: Writer, selection: Annotated[FilterParameters, Query()]
) -> DeletionResult:
    """Delete every item that passes the filter permanently. At least one field of the filter is required."""
    chosen = selection.filter()
    where = from_filter(chosen)
    if where == Filter():
        raise InvalidRequest(
            [FieldError(field=name, detail="or another filter is required") for name in FilterFields.model_fields]
        )
    unfinished = [
        job
        for state_ in (JobState.RUNNING, JobState.QUEUED)
        for job in state.jobs.list(limit=MAX_PAGE, state=state_, galleries={gallery})
    ]
    receipt = to_receipt(state.galleries.erasure.erase(gallery, where, caller.key_id, jobs=len(unfinished)))
    options = chosen.model_dump(mode="json", exclude_defaults=True)
    detail = options | {"deleted": receipt.items, "receipt": receipt.id}
    state.audit.record(caller.key_id, "items.delete", gallery, detail)
    return DeletionResult(deleted=receipt.items, receipt=receipt)


@router.get("/{item}", summary="Get an item", responses=problems(404))
def get_item(gallery: ResolvedGallery, item: ItemId, state: StateDep, _caller: Searcher) -> ItemDetails:
    """Return one item."""
    return to_item_details(state.galleries.query.item(gallery, item))


@router.patch("/{item}", summary="Change an item", responses=problems(404, 507))
def change_item(
    gallery: ResolvedGallery, item: ItemId, body: ItemChanges, state: StateDep, caller: Writer
) -> ItemDetails:
    """Change the metadata of an item; its image and embedding stay."""
    changes = {name: getattr(body, name) for name in body.model_fields_set}
    changed = state.galleries.writer.update_item(gallery, item, changes)
    state.audit.record(caller.key_id, "items.update", gallery, {"item": item, "fields": sorted(changes)})
    return to_item_details(changed)


@router.delete("/{item}", status_code=204, summary="Delete an item", responses=problems(404))
def delete_item(gallery: ResolvedGallery, item: ItemId, state: StateDep, caller: Writer) -> None:
    """Delete an item with its embedding and image permanently."""
    state.galleries.erasure.delete_item(gallery, item)
    state.audit.record(caller.key_id, "items.delete", gallery, {"item": item, "deleted": 1})


@router.get(
    "/{item}/image",
    summary="Get the thumbnail of an item",
    response_class=Response,
    responses=problems(404) | {200: {"content": {"image/jpeg": {}, "image/webp": {}}, "description": "The thumbnail"}},
)
def get_image(gallery: ResolvedGallery, item: ItemId, state: StateDep, _caller: Searcher) -> Response:
    """Return the thumbnail of an item as JPEG, or as WebP if an earlier version of the server stored it."""
    image = state.galleries.query.thumbnail(gallery, item)
    return Response(image, media_type=thumbnail_type(image))
