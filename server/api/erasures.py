"""Receipts of erasures."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from server.api.auth import Reader
from server.api.errors import problems
from server.api.paging import after, page
from server.api.schemas import Page, Receipt, ReceiptId, ReceiptsPage
from server.api.service import ServiceDep
from server.errors import ErasureNotFound

__all__ = ["router"]

router = APIRouter(prefix="/v1/erasures", tags=["items"])


@router.get("", responses=problems())
def list_erasures(service: ServiceDep, caller: Reader, wanted: Annotated[Page, Query()]) -> ReceiptsPage:
    """The receipts of the galleries that the key covers, newest first; also those of galleries that are gone."""
    found = service.galleries.erasures(limit=wanted.limit + 1, after=after(wanted.cursor), galleries=caller.galleries)
    kept, following = page(found, wanted.limit, lambda erasure: erasure.id)
    return ReceiptsPage(receipts=[Receipt.of(erasure) for erasure in kept], next_cursor=following)


@router.get("/{erasure}", responses=problems(404))
def get_erasure(erasure: ReceiptId, service: ServiceDep, caller: Reader) -> Receipt:
    """One receipt."""
    found = service.galleries.erasure(erasure)
    if caller.galleries is not None and found.gallery not in caller.galleries:
        raise ErasureNotFound(erasure)
    return Receipt.of(found)
