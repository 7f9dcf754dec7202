"""Galleries: create, list, change, delete."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from server.api.app_state import AppState, StateDep
from server.api.auth import Caller, Searcher, Writer
from server.api.conversion import to_gallery_details
from server.api.dependencies import GalleryName, ResolvedGallery
from server.api.errors import problems
from server.api.paging import decode_cursor, split_page
from server.domain.errors import GalleryNotFound
from server.domain.types import Gallery, VectorType
from server.storage.api_keys import Scope
from vireid.schemas.galleries import GalleriesPage, GalleryChanges, GalleryDetails, NewGallery
from vireid.schemas.paging import PageQuery

__all__ = ["router"]

router = APIRouter(prefix="/v1/galleries", tags=["galleries"])


@router.post("", status_code=201, summary="Create a gallery", responses=problems(404, 409, 507))
def create_gallery(body: NewGallery, state: StateDep, caller: Writer, response: Response) -> GalleryDetails:
    """Create a gallery and bind it to the weights of one model."""
    caller.check(Scope.WRITE, body.name)
    card = state.models.get(body.model).card
    gallery = state.galleries.catalog.create(
        body.name,
        model=card.name,
        fingerprint=card.fingerprint,
        dimension=card.dimension,
        retention_days=body.retention_days,
        description=body.description,
        vector_type=VectorType(body.vector_type),
        thumbnails=body.thumbnails,
    )
    state.audit.record(caller.key_id, "gallery.create", body.name, {"model": card.name})
    response.headers["Location"] = f"/v1/galleries/{body.name}"
    return to_gallery_details(gallery)


@router.get("", summary="List galleries", responses=problems())
def list_galleries(state: StateDep, caller: Searcher, query: Annotated[PageQuery, Query()]) -> GalleriesPage:
    """Return the galleries that the API key covers, by name."""
    found = _visible(state, caller, query.limit + 1, decode_cursor(query.cursor))
    galleries, next_cursor = split_page(found, query.limit, lambda gallery: gallery.name)
    return GalleriesPage(galleries=[to_gallery_details(gallery) for gallery in galleries], next_cursor=next_cursor)


@router.get("/{gallery}", summary="Get a gallery", responses=problems(404))
def get_gallery(gallery: ResolvedGallery, state: StateDep, _caller: Searcher) -> GalleryDetails:
    """Return one gallery."""
    return to_gallery_details(state.galleries.catalog.get(gallery))


@router.patch("/{gallery}", summary="Change a gallery", responses=problems(404, 507))
def change_gallery(gallery: ResolvedGallery, body: GalleryChanges, state: StateDep, caller: Writer) -> GalleryDetails:
    """Change the retention or the description of a gallery."""
    changes = body.model_dump(exclude_unset=True)
    changed = state.galleries.catalog.update(gallery, changes)
    state.audit.record(caller.key_id, "gallery.update", gallery, {"fields": sorted(changes)})
    return to_gallery_details(changed)


@router.delete("/{gallery}", status_code=204, summary="Delete a gallery", responses=problems(404))
def delete_gallery(gallery: GalleryName, state: StateDep, caller: Writer) -> None:
    """Delete a gallery with its items and aliases permanently. An alias is not accepted as its name."""
    state.galleries.catalog.delete(gallery)
    state.audit.record(caller.key_id, "gallery.delete", gallery, {})


def _visible(state: AppState, caller: Caller, limit: int, after: str | None) -> list[Gallery]:
    if caller.galleries is None:
        return state.galleries.catalog.list(limit=limit, after=after)
    found: list[Gallery] = []
    for name in sorted(caller.galleries):
        if len(found) < limit and (after is None or name > after):
            try:
                found.append(state.galleries.catalog.get(name))
            except GalleryNotFound:
                continue
    return found
