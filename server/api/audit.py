"""Audit log."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Query

from server.api.app_state import StateDep
from server.api.auth import Admin
from server.api.errors import problems
from server.api.paging import decode_number_cursor, split_page
from server.domain.validation import invalid
from vireid.schemas.audit import AuditEntry, AuditPage, AuditVerification, AuditVerifyQuery
from vireid.schemas.paging import PageQuery

__all__ = ["router"]

router = APIRouter(prefix="/v1/audit", tags=["access"])


@router.get("", summary="List audit entries", responses=problems())
def list_audit(state: StateDep, _caller: Admin, query: Annotated[PageQuery, Query()]) -> AuditPage:
    """Return the entries of the audit log, newest first. They never hold an image or an embedding."""
    found = state.audit.list(query.limit + 1, decode_number_cursor(query.cursor))
    entries, next_cursor = split_page(found, query.limit, lambda entry: str(entry.number))
    return AuditPage(
        entries=[AuditEntry.model_validate(entry, from_attributes=True) for entry in entries], next_cursor=next_cursor
    )


@router.get("/verify", summary="Verify the audit log", responses=problems())
def verify_audit(state: StateDep, _caller: Admin, query: Annotated[AuditVerifyQuery, Query()]) -> AuditVerification:
    """Verify that no entry of the hash chain was changed, removed or inserted."""
    if (query.number is None) != (query.digest is None):
        raise invalid("digest", "and number belong together")
    found = state.audit.verify(number=query.number, digest=query.digest)
    return AuditVerification(valid=found.problem is None, **asdict(found))
