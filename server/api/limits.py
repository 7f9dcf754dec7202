"""Limits that clients must respect."""

from __future__ import annotations

from fastapi import APIRouter

from server.api.app_state import StateDep
from server.api.auth import Reader
from server.api.errors import problems
from server.embedding.image_file import FORMATS
from vireid.schemas.limits import Limits
from vireid.schemas.paging import MAX_PAGE
from vireid.schemas.search import MAX_K, MAX_QUERY_IMAGES, MAX_SEARCHES

__all__ = ["router"]

router = APIRouter(prefix="/v1/limits", tags=["service"])


@router.get("", summary="Get the limits", responses=problems())
def limits(state: StateDep, _caller: Reader) -> Limits:
    """Return the limits of one request."""
    settings = state.settings
    return Limits(
        max_images=settings.max_images,
        max_query_images=min(MAX_QUERY_IMAGES, settings.max_images),
        max_image_bytes=settings.max_image_bytes,
        max_body_bytes=settings.max_body_bytes,
        max_import_bytes=settings.max_import_bytes,
        max_pixels=settings.max_pixels,
        max_in_flight=settings.max_in_flight,
        max_k=MAX_K,
        max_searches=MAX_SEARCHES,
        max_page=MAX_PAGE,
        formats=[name.lower() for name in FORMATS],
    )
