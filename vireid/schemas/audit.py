"""Audit log."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import Field

from vireid.schemas.base import Schema

__all__ = ["AuditEntry", "AuditPage", "AuditVerification", "AuditVerifyQuery"]


class AuditEntry(Schema):
    """An operation of a caller; `key_id` is null where no API key was required."""

    number: int
    at: datetime
    key_id: str | None
    action: str
    gallery: str | None
    detail: dict[str, Any]
    case_reference: str | None = Field(None, description="Header `X-Case-Reference` of the request.")
    reason: str | None = Field(None, description="Header `X-Reason` of the request.")
    previous: str | None = Field(None, description="Digest of the previous entry; null: older than the hash chain.")
    digest: str | None = Field(None, description="SHA-256 of this entry as canonical JSON without `digest`.")


class AuditPage(Schema):
    """Entries of the audit log, newest first."""

    entries: tuple[AuditEntry, ...]
    next_cursor: str | None


class AuditVerifyQuery(Schema):
    """An entry that was noted earlier and must still be in the hash chain."""

    number: int | None = Field(None, ge=1, le=2**63 - 1)
    digest: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")


class AuditVerification(Schema):
    """Result of a verification of the hash chain. Note `last` and `digest` outside the server for the next time."""

    valid: bool
    problem: str | None = Field(description="What is wrong; null: the chain is intact.")
    entries: int = Field(description="Number of entries in the chain.")
    unchained: int = Field(description="Number of entries of earlier versions, which the chain does not cover.")
    first: int | None = Field(description="Number of the first entry in the chain.")
    last: int | None = Field(description="Number of the last entry that was verified.")
    digest: str | None = Field(description="Digest of the last entry that was verified.")
    pruned_through: int | None = Field(description="Number of the last entry that retention has deleted.")
