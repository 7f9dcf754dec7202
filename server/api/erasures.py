"""Receipts of erasures."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from server.api.app_state import StateDep
from server.api.auth import Reader
from server.api.conversion import to_receipt
from server.api.dependencies import ReceiptId
from server.api.errors import problems
from server.api.paging import decode_cursor, invalid_cursor, split_page
from server.domain.errors import ErasureNotFound
from vireid.schemas.erasures import Receipt, ReceiptsPage
from vireid.schemas.paging import PageQuery

__all__ = ["router"]

router = APIRouter(prefix="/v1/erasures", tags=["items"])


@router.get("", summary="List erasure receipts", responses=problems())
def list_erasures(state: StateDep, caller: Reader, query: Annotated[PageQuery, Query()]) -> ReceiptsPage:
    """Return the receipts of the galleries that the API key covers, newest first, including deleted galleries."""
    after = decode_cursor(query.cursor)
    try:
        found = state.galleries.erasure.receipts(limit=query.limit + 1, after=after, galleries=caller.galleries)
    except ErasureNotFound:
        raise invalid_cursor() from None
    erasures, next_cursor = split_page(found, query.limit, lambda erasure: erasure.id)
    return ReceiptsPage(receipts=[to_receipt(erasure) for erasure in erasures], next_cursor=next_cursor)


@router.get("/{erasure}", summary="Get an erasure receipt", responses=problems(404))
def get_erasure(erasure: ReceiptId, state: StateDep, caller: Reader) -> Receipt:
    """Return one receipt."""
    found = state.galleries.erasure.receipt(erasure)
    if not caller.covers(found.gallery):
        raise ErasureNotFound(erasure)
    return to_receipt(found)
