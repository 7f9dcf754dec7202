"""Who searched or changed what, when."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from server.api.auth import Admin
from server.api.errors import problems
from server.api.paging import number_after, page
from server.api.schemas import AuditEntry, AuditPage, Page
from server.api.service import ServiceDep

__all__ = ["router"]

router = APIRouter(prefix="/v1/audit", tags=["access"])


@router.get("", responses=problems())
def list_audit(service: ServiceDep, _caller: Admin, wanted: Annotated[Page, Query()]) -> AuditPage:
    """The entries, newest first. They never hold an image or a vector."""
    found = service.audit.list(wanted.limit + 1, number_after(wanted.cursor))
    kept, following = page(found, wanted.limit, lambda entry: str(entry.number))
    return AuditPage(entries=[AuditEntry.of(entry) for entry in kept], next_cursor=following)
