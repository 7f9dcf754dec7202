"""Every limit a client must respect."""

from __future__ import annotations

from fastapi import APIRouter

from server.api.auth import Reader
from server.api.errors import problems
from server.api.schemas import MAX_K, MAX_PAGE, MAX_QUERY_IMAGES, MAX_SEARCHES, Limits
from server.api.service import ServiceDep
from server.embedding.decode import FORMATS

__all__ = ["router"]

router = APIRouter(prefix="/v1/limits", tags=["service"])


@router.get("", responses=problems())
def limits(service: ServiceDep, _caller: Reader) -> Limits:
    """What one request may bring and ask for."""
    settings = service.settings
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
