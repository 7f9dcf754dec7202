"""Summary of a gallery, or of the items that pass a filter."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Query

from server.api.app_state import StateDep
from server.api.auth import Searcher
from server.api.conversion import from_filter
from server.api.dependencies import ResolvedGallery
from server.api.errors import problems
from vireid.schemas.filters import FilterParameters
from vireid.schemas.summary import GallerySummary

__all__ = ["router"]

router = APIRouter(prefix="/v1/galleries/{gallery}/summary", tags=["galleries"])


@router.get("", summary="Summarise a gallery", responses=problems(404, 503))
def summarise_gallery(
    gallery: ResolvedGallery, state: StateDep, _caller: Searcher, selection: Annotated[FilterParameters, Query()]
) -> GallerySummary:
    """Return how many items pass the filter, by modality and camera, and when the first and last were captured."""
    where = from_filter(selection.filter())
    return GallerySummary(**asdict(state.galleries.query.summary(gallery, where)))
