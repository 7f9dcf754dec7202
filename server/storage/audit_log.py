"""The audit log: which key searched or changed what, when and why, as a hash chain. It never holds images.

The digest of an entry is the SHA-256 of its canonical JSON, which includes the digest of the previous entry: an entry
cannot be changed, removed or inserted without changing all later digests.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from sqlalchemy import Connection, Engine, Row, delete, func, insert, select
from sqlalchemy.exc import SQLAlchemyError

from server.domain.errors import DatabaseUnavailable, NotReady, StorageFull
from server.storage import tables
from server.storage.startup_errors import DatabaseDamaged
from server.storage.transactions import reading, writing

__all__ = ["AuditEntry", "AuditLog", "AuditVerification", "RequestReference", "request_reference"]

_log = logging.getLogger(__name__)

_GENESIS = "0" * 64
"""``previous`` of the first entry of a chain."""
_PRUNE = "audit.prune"
_BATCH = 1000

_audit = tables.audit.c
_NEWEST_FIRST = select(tables.audit).order_by(_audit.number.desc())
_HEAD = select(_audit.number, _audit.digest).order_by(_audit.number.desc()).limit(1)
_INSERT = insert(tables.audit)


@dataclass(frozen=True, slots=True)
class RequestReference:
    """What the caller gives as the case and the reason of a request."""

    case_reference: str | None = None
    reason: str | None = None
    token: Mapping[str, str] | None = None
    """Issuer and subject of the token of the caller; the detail of the entries holds them."""


request_reference: ContextVar[RequestReference | None] = ContextVar("request_reference", default=None)
"""Case, reason and token of the current request, which its entries hold; None: no request."""


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One recorded action. ``number`` increases by one; ``key_id`` is None if no key was required.

    ``previous`` and ``digest`` are None for entries that are older than the hash chain.
    """

    number: int
    at: datetime
    key_id: str | None
    action: str
    gallery: str | None
    detail: Mapping[str, object]
    case_reference: str | None = None
    reason: str | None = None
    previous: str | None = None
    digest: str | None = None

    def compute_digest(self) -> str:
        """Return the SHA-256 of the entry's canonical JSON: all fields but ``digest``, keys sorted, no spaces."""
        fields = {
            "number": self.number,
            "at": self.at.astimezone(UTC).isoformat(timespec="microseconds"),
            "key_id": self.key_id,
            "action": self.action,
            "gallery": self.gallery,
            "detail": self.detail,
            "case_reference": self.case_reference,
            "reason": self.reason,
            "previous": self.previous,
        }
        return sha256(json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class AuditVerification:
    """The result of a verification of the hash chain.

    ``entries`` are in the chain, from ``first`` to ``last``; ``digest`` is that of the last one. ``unchained`` entries
    are older than the chain. Entries up to ``pruned_through`` were deleted by retention. ``problem`` None: the chain is
    intact.
    """

    entries: int = 0
    unchained: int = 0
    first: int | None = None
    last: int | None = None
    digest: str | None = None
    pruned_through: int | None = None
    problem: str | None = None


class AuditLog:
    """The audit log in the database of an engine (``SqlStore.engine``). Thread-safe; entries are never changed."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def record(self, key_id: str | None, action: str, gallery: str | None, detail: Mapping[str, object]) -> None:
        """Add an entry; it is on disk when this returns. ``detail`` is JSON.

        The action has already happened, so a full disk or a lost database must not make it fail: the entry then goes
        to the program's log, without its detail, which may name people.
        """
        try:
            with writing(self._engine) as connection:
                _append(connection, key_id, action, gallery, detail)
        except (StorageFull, DatabaseUnavailable) as error:
            _log.error("the audit log lacks %s by key %s on gallery %s: %r", action, key_id, gallery, error)

    def require(self, key_id: str | None, action: str, gallery: str | None, detail: Mapping[str, object]) -> None:
        """Like :meth:`record`, for an action whose result may be sent only if it is recorded.

        Raises:
            NotReady: the entry could not be written.
        """
        try:
            with writing(self._engine) as connection:
                _append(connection, key_id, action, gallery, detail)
        except (StorageFull, DatabaseDamaged, SQLAlchemyError, OSError) as error:
            _log.error("%s by key %s on gallery %s is refused: no audit entry: %r", action, key_id, gallery, error)
            raise NotReady(["the audit log cannot be written, so that searches are refused"]) from None

    def list(self, limit: int, after: int | None = None) -> list[AuditEntry]:
        """Return at most ``limit`` entries, newest first, starting behind entry ``after``."""
        query = _NEWEST_FIRST.limit(limit)
        if after is not None:
            query = query.where(_audit.number < after)
        with reading(self._engine) as connection:
            return [_to_entry(row) for row in connection.execute(query)]

    def newest(self, *actions: str) -> AuditEntry | None:
        """Return the newest entry, or the newest with one of the given actions; None if there is none."""
        query = _NEWEST_FIRST.limit(1)
        if actions:
            query = query.where(_audit.action.in_(actions))
        with reading(self._engine) as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else _to_entry(row)

    def prune(self, before: datetime) -> int:
        """Delete the oldest entries up to the first that is not older than ``before``; return their number.

        The newest entry stays. An entry records the number and digest of the last deleted one, so that the rest of the
        chain can be verified.
        """
        with writing(self._engine, erases=True) as connection:
            head = connection.execute(_HEAD).one_or_none()
            if head is None:
                return 0
            kept = connection.scalar(select(func.min(_audit.number)).where(_audit.at >= before))
            last = connection.execute(
                select(_audit.number, _audit.digest)
                .where(_audit.number < min(kept or head.number, head.number))
                .order_by(_audit.number.desc())
                .limit(1)
            ).one_or_none()
            if last is None:
                return 0
            old = _audit.number <= last.number
            count = connection.scalar(select(func.count()).where(old)) or 0
            detail = {"through": last.number, "digest": last.digest or _GENESIS, "deleted": count}
            _append(connection, None, _PRUNE, None, detail)
            connection.execute(delete(tables.audit).where(old))
        return count

    def verify(self, *, number: int | None = None, digest: str | None = None) -> AuditVerification:
        """Verify the hash chain. ``number`` and ``digest``: those of an entry noted earlier, which must be in it.

        Only a noted entry shows that the newest entries were not cut off.
        """
        chain = _Chain(number)
        with reading(self._engine) as connection:
            for entry in _oldest_first(connection):
                if problem := chain.add(entry):
                    return replace(chain.result(), problem=problem)
        return replace(chain.result(), problem=chain.problem_at_end(digest))


class _Chain:
    """The entries that a verification has seen, oldest first."""

    def __init__(self, noted_number: int | None) -> None:
        self._noted_number, self._noted_digest = noted_number, None if noted_number is None else ""
        self._first: AuditEntry | None = None
        self._last: AuditEntry | None = None
        self._unchained = self._entries = 0
        self._pruned: dict[int, object] = {}

    def add(self, entry: AuditEntry) -> str | None:
        """Add the next entry; return what is wrong with it."""
        if entry.digest is None:
            if self._last is not None:
                return f"entry {entry.number} has no digest"
            self._unchained += 1
            return None
        if self._last is None:
            self._first = entry
        elif entry.number != self._last.number + 1:
            return f"entries between {self._last.number} and {entry.number} are missing"
        elif entry.previous != self._last.digest:
            return f"entry {entry.number} does not follow entry {self._last.number}"
        if entry.compute_digest() != entry.digest:
            return f"entry {entry.number} was changed"
        if entry.action == _PRUNE:
            self._pruned[int(str(entry.detail["through"]))] = entry.detail["digest"]
        if entry.number == self._noted_number:
            self._noted_digest = entry.digest
        self._last = entry
        self._entries += 1
        return None

    def problem_at_end(self, noted_digest: str | None) -> str | None:
        """Return what is wrong with the start of the chain, or with the noted entry."""
        first = self._first
        if first is not None:
            begins = first.previous == _GENESIS and (self._unchained or first.number == 1)
            pruned = not self._unchained and self._pruned.get(first.number - 1) == first.previous
            if not (begins or pruned):
                return f"entries before {first.number} are missing"
        if self._noted_number is None or (first is not None and self._noted_number < first.number):
            return None
        if self._last is None or self._noted_number > self._last.number:
            return f"entries up to {self._noted_number} are missing at the end"
        return None if self._noted_digest == noted_digest else f"entry {self._noted_number} has another digest"

    def result(self) -> AuditVerification:
        """Return what was found, without a problem."""
        return AuditVerification(
            entries=self._entries,
            unchained=self._unchained,
            first=None if self._first is None else self._first.number,
            last=None if self._last is None else self._last.number,
            digest=None if self._last is None else self._last.digest,
            pruned_through=max(self._pruned, default=None),
        )


def _append(
    connection: Connection, key_id: str | None, action: str, gallery: str | None, detail: Mapping[str, object]
) -> None:
    head = connection.execute(_HEAD).one_or_none()
    reference = request_reference.get() or RequestReference()
    token = {} if reference.token is None else {"token": reference.token}
    entry = AuditEntry(
        number=1 if head is None else head.number + 1,
        at=datetime.now(UTC),
        key_id=key_id,
        action=action,
        gallery=gallery,
        detail=json.loads(json.dumps({**detail, **token})),  # as it will be read
        case_reference=reference.case_reference,
        reason=reference.reason,
        previous=(head and head.digest) or _GENESIS,
    )
    values = {name: getattr(entry, name) for name in AuditEntry.__slots__}
    connection.execute(_INSERT, {**values, "digest": entry.compute_digest()})


def _oldest_first(connection: Connection) -> Iterator[AuditEntry]:
    after = -1
    query = select(tables.audit).order_by(_audit.number).limit(_BATCH)
    while rows := connection.execute(query.where(_audit.number > after)).all():
        yield from map(_to_entry, rows)
        after = rows[-1].number


def _to_entry(row: Row[Any]) -> AuditEntry:
    return AuditEntry(**{name: getattr(row, name) for name in AuditEntry.__slots__})
