"""Duplicates: items of a gallery with nearly the same embedding."""

from __future__ import annotations

import re
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Request

from server.api.app_state import AppState, StateDep
from server.api.auth import Caller, Searcher
from server.api.conversion import from_filter, to_item_summary
from server.api.dependencies import ResolvedGallery
from server.api.errors import problems
from server.api.paging import decode_cursor, encode_cursor
from server.domain.validation import invalid
from server.gallery.duplicates import PairPosition
from vireid.schemas.duplicates import DuplicatePair, DuplicatesPage, DuplicatesSelection

__all__ = ["router"]

router = APIRouter(prefix="/v1/galleries/{gallery}/duplicates", tags=["items"])

_PAIR_POSITION = re.compile(r"(\d{1,18})-(\d{1,18})")


@router.get("", summary="List duplicates", responses=problems(404, 503))
async def list_duplicates(
    request: Request,
    gallery: ResolvedGallery,
    state: StateDep,
    caller: Searcher,
    selection: Annotated[DuplicatesSelection, Query()],
) -> DuplicatesPage:
    """Return pairs of items with nearly the same embedding, each once, in the order in which the items were stored.

    Every item is compared with every other. A page holds what is found in about one second, so it may have few pairs
    or none although more follow; `next_cursor` is null when all items have been compared.
    """
    return await state.pools.scan(request, caller.key_id, partial(_page, state, caller, gallery, selection))


def _page(state: AppState, caller: Caller, gallery: str, selection: DuplicatesSelection) -> DuplicatesPage:
    found = state.galleries.query.duplicates(
        gallery,
        from_filter(selection.filter()),
        selection.min_score,
        limit=selection.limit,
        start=_pair_position(decode_cursor(selection.cursor)),
    )
    options = selection.model_dump(mode="json", exclude={"cursor"}, exclude_defaults=True)
    state.audit.record(caller.key_id, "duplicates", gallery, {**options, "pairs": len(found.pairs)})
    return DuplicatesPage(
        pairs=[
            DuplicatePair(
                a=to_item_summary(pair.first),
                b=to_item_summary(pair.second),
                score=pair.score,
                identical=pair.identical,
            )
            for pair in found.pairs
        ],
        items=found.items,
        walked=found.walked,
        next_cursor=found.end and encode_cursor(f"{found.end.first}-{found.end.second}"),
    )


def _pair_position(key: str | None) -> PairPosition | None:
    if key is None:
        return None
    place = _PAIR_POSITION.fullmatch(key)
    if place is None:
        raise invalid("cursor", "is not the next_cursor of a page")
    return PairPosition(int(place[1]), int(place[2]))
