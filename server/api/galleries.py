"""Galleries: create, list, change, delete."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from server.access import Scope
from server.api.auth import Caller, Searcher, Writer
from server.api.bound import NamedGallery
from server.api.errors import problems
from server.api.paging import after, page
from server.api.schemas import (
    GalleriesPage,
    GalleryChanges,
    GalleryFacts,
    GalleryName,
    NewGallery,
    Page,
)
from server.api.service import Service, ServiceDep
from server.errors import GalleryNotFound
from server.gallery.types import Gallery

__all__ = ["router"]

router = APIRouter(prefix="/v1/galleries", tags=["galleries"])


@router.post("", status_code=201, responses=problems(404, 409, 507))
def create_gallery(body: NewGallery, service: ServiceDep, caller: Writer, response: Response) -> GalleryFacts:
    """Create a gallery, bound to the weights of one model."""
    caller.check(Scope.WRITE, body.name)
    card = service.models.get(body.model).card
    gallery = service.galleries.create(
        body.name,
        model=card.name,
        fingerprint=card.fingerprint,
        dimension=card.dimension,
        retention_days=body.retention_days,
        description=body.description,
        vector_type=body.vector_type,
        thumbnails=body.thumbnails,
    )
    service.audit.record(caller.key_id, "gallery.create", body.name, {"model": card.name})
    response.headers["Location"] = f"/v1/galleries/{body.name}"
    return GalleryFacts.of(gallery)


@router.get("", responses=problems())
def list_galleries(service: ServiceDep, caller: Searcher, wanted: Annotated[Page, Query()]) -> GalleriesPage:
    """The galleries that the key covers, by name."""
    found = _visible(service, caller, wanted.limit + 1, after(wanted.cursor))
    kept, following = page(found, wanted.limit, lambda gallery: gallery.name)
    return GalleriesPage(galleries=[GalleryFacts.of(gallery) for gallery in kept], next_cursor=following)


@router.get("/{gallery}", responses=problems(404))
def get_gallery(gallery: NamedGallery, service: ServiceDep, _caller: Searcher) -> GalleryFacts:
    """One gallery."""
    return GalleryFacts.of(service.galleries.get(gallery))


@router.patch("/{gallery}", responses=problems(404, 507))
def change_gallery(gallery: NamedGallery, body: GalleryChanges, service: ServiceDep, caller: Writer) -> GalleryFacts:
    """Change retention or description."""
    changes = body.model_dump(exclude_unset=True)
    changed = service.galleries.update(gallery, changes)
    service.audit.record(caller.key_id, "gallery.update", gallery, {"fields": sorted(changes)})
    return GalleryFacts.of(changed)


@router.delete("/{gallery}", status_code=204, responses=problems(404))
def delete_gallery(gallery: GalleryName, service: ServiceDep, caller: Writer) -> None:
    """Delete a gallery with all that it holds and its aliases, for good. An alias deletes nothing."""
    service.galleries.delete(gallery)
    service.audit.record(caller.key_id, "gallery.delete", gallery, {})


def _visible(service: Service, caller: Caller, limit: int, behind: str | None) -> list[Gallery]:
    if caller.galleries is None:
        return service.galleries.list(limit=limit, after=behind)
    found: list[Gallery] = []
    for name in sorted(caller.galleries):
        if len(found) < limit and (behind is None or name > behind):
            try:
                found.append(service.galleries.get(name))
            except GalleryNotFound:
                continue
    return found
