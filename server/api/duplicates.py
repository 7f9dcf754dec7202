"""Items of a gallery that are nearly the same."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import APIRouter, Query

from server.api.auth import Searcher
from server.api.bound import NamedGallery
from server.api.errors import invalid, problems
from server.api.paging import after, cursor
from server.api.schemas import DuplicatePair, DuplicatesPage, DuplicatesSelection, ItemFacts
from server.api.service import ServiceDep
from server.gallery.duplicates import PairPlace
from server.gallery.types import Filter

__all__ = ["router"]

router = APIRouter(prefix="/v1/galleries/{gallery}/duplicates", tags=["items"])

_PLACE = re.compile(r"(\d{1,18})-(\d{1,18})")


@router.get("", responses=problems(404, 503))
def list_duplicates(
    gallery: NamedGallery, service: ServiceDep, caller: Searcher, selection: Annotated[DuplicatesSelection, Query()]
) -> DuplicatesPage:
    """Pairs of items whose vectors nearly agree, each once, in the order in which the items were stored.

    Every item is compared with every other. A page holds what is found in about a second, so it may have few pairs, or
    none, although more are to come; `next_cursor` is null when all have been compared.
    """
    found = service.galleries.duplicates(
        gallery,
        Filter(modality=selection.modality),
        selection.min_score,
        limit=selection.limit,
        start=_place(after(selection.cursor)),
    )
    asked = selection.model_dump(mode="json", exclude={"cursor"}, exclude_defaults=True)
    service.audit.record(caller.key_id, "duplicates", gallery, {**asked, "pairs": len(found.pairs)})
    return DuplicatesPage(
        pairs=[
            DuplicatePair(
                a=ItemFacts.of(pair.first), b=ItemFacts.of(pair.second), score=pair.score, identical=pair.identical
            )
            for pair in found.pairs
        ],
        items=found.items,
        walked=found.walked,
        next_cursor=found.end and cursor(f"{found.end.first}-{found.end.second}"),
    )


def _place(behind: str | None) -> PairPlace | None:
    if behind is None:
        return None
    place = _PLACE.fullmatch(behind)
    if place is None:
        raise invalid("cursor", "is not the next_cursor of a page")
    return PairPlace(int(place[1]), int(place[2]))
