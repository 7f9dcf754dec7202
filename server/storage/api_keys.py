"""API keys with their scopes, galleries, limits and life cycle."""

from __future__ import annotations

import builtins
import hashlib
import secrets
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from threading import Lock
from typing import Any

from sqlalchemy import Connection, Engine, Row, and_, delete, insert, or_, select, update

from server.domain.errors import ApiKeyNotFound, ApiKeyRejected, LastAdminKey, StorageFull, Unauthorized
from server.storage import tables
from server.storage.sql_rows import ADDRESSABLE
from server.storage.transactions import reading, writing

__all__ = ["ApiKey", "ApiKeys", "Scope"]

_PREFIX = "vireid_"
_SECRET_BYTES = 32
_USE_INTERVAL = timedelta(minutes=5)
"""Shortest time between two writes of a key's last use."""

_keys = tables.api_keys.c


class Scope(StrEnum):
    """A permission of a key."""

    SEARCH = "search"
    WRITE = "write"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key without its secret.

    ``galleries`` None: all galleries, including future ones. Otherwise the names of the key's galleries that still
    exist; a gallery that is created under the name of a deleted one is not among them. ``old_secret_expires_at`` is the
    end of the time in which the secret before the last rotation is accepted too.
    """

    id: str
    name: str
    scopes: frozenset[Scope]
    galleries: frozenset[str] | None
    created_at: datetime
    expires_at: datetime | None = None
    last_used_at: datetime | None = field(default=None, compare=False)
    old_secret_expires_at: datetime | None = None
    requests_per_minute: int | None = None


class ApiKeys:
    """The keys in the database of an engine (``SqlStore.engine``). Thread-safe.

    A secret is random (256 bits) and stored only as its SHA-256; a slow hash is not needed, because it cannot be
    guessed. A deleted key stops working at once.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._uses: dict[str, datetime] = {}
        self._uses_lock = Lock()

    def create(
        self,
        name: str,
        scopes: Collection[Scope],
        galleries: Collection[str] | None,
        *,
        expires_at: datetime | None = None,
        requests_per_minute: int | None = None,
    ) -> tuple[ApiKey, str]:
        """Create a key; return it with its secret, which cannot be shown again.

        Raises:
            ApiKeyRejected: no scope, an empty ``galleries``, one that does not exist, or an expiry in the past.
        """
        if not scopes:
            raise ApiKeyRejected("a key needs at least one scope")
        if galleries is not None and not galleries:
            raise ApiKeyRejected("a key that is limited to galleries needs at least one")
        _check_expiry(expires_at)
        secret = _new_secret()
        values = {
            "id": f"key_{secrets.token_hex(8)}",
            "name": name,
            "secret_sha256": _digest(secret),
            "scopes": sorted(scopes),
            "created_at": datetime.now(UTC),
            "expires_at": expires_at,
            "limits": None if requests_per_minute is None else {"requests_per_minute": requests_per_minute},
        }
        with writing(self._engine) as connection:
            numbers = None if galleries is None else _numbers_of(connection, galleries)
            values["gallery_numbers"] = numbers
            row = connection.execute(insert(tables.api_keys).values(values).returning(tables.api_keys)).one()
            (key,) = _to_keys(connection, [row])
        return key, secret

    def verify(self, secret: str) -> ApiKey:
        """Return the key of a secret, and note its use.

        Raises:
            Unauthorized: the secret is unknown, or its key has expired.
        """
        digest, now = _digest(secret), datetime.now(UTC)
        old_secret = and_(_keys.previous_sha256 == digest, _keys.previous_expires_at > now)
        query = select(tables.api_keys).where(or_(_keys.secret_sha256 == digest, old_secret))
        with reading(self._engine) as connection:
            found = _to_keys(connection, connection.execute(query).all())
        if not found or _expired(found[0], now):
            raise Unauthorized
        self._note_use(found[0], now)
        return found[0]

    def rotate(self, id: str, overlap: timedelta, *, expires_at: datetime | None = None) -> tuple[ApiKey, str]:
        """Give a key a new secret, and a new expiry if one is given. The old secret is accepted during ``overlap``.

        Of a key that is rotated twice, only the two newest secrets are accepted.

        Raises:
            ApiKeyNotFound: there is no such key.
            ApiKeyRejected: the expiry is in the past.
        """
        _check_expiry(expires_at)
        secret = _new_secret()
        values: dict[str, object] = {
            "previous_sha256": _keys.secret_sha256,
            "previous_expires_at": datetime.now(UTC) + overlap,
            "secret_sha256": _digest(secret),
        }
        if expires_at is not None:
            values["expires_at"] = expires_at
        statement = update(tables.api_keys).where(_keys.id == id).values(values).returning(tables.api_keys)
        with writing(self._engine) as connection:
            row = connection.execute(statement).one_or_none()
            if row is None:
                raise ApiKeyNotFound(id)
            (key,) = _to_keys(connection, [row])
        return key, secret

    def list(self) -> builtins.list[ApiKey]:
        """Return all keys, oldest first."""
        with reading(self._engine) as connection:
            return _all_keys(connection)

    def delete(self, id: str) -> None:
        """Delete a key.

        Raises:
            ApiKeyNotFound: there is no such key.
            LastAdminKey: without it no usable key could manage keys.
        """
        with writing(self._engine) as connection:
            keys = {key.id: key for key in _all_keys(connection)}
            if id not in keys:
                raise ApiKeyNotFound(id)
            if _is_admin(keys[id]) and not any(_is_admin(key) for key in keys.values() if key.id != id):
                raise LastAdminKey(id)
            connection.execute(delete(tables.api_keys).where(_keys.id == id))

    def any_admin(self) -> bool:
        """Return whether a usable key has the scope ``admin`` for all galleries, and so can manage keys."""
        return any(map(_is_admin, self.list()))

    def _note_use(self, key: ApiKey, now: datetime) -> None:
        with self._uses_lock:
            last = max(filter(None, (self._uses.get(key.id), key.last_used_at)), default=None)
            if last is not None and abs(now - last) < _USE_INTERVAL:
                return
            self._uses[key.id] = now
        try:
            with writing(self._engine) as connection:
                connection.execute(update(tables.api_keys).where(_keys.id == key.id).values(last_used_at=now))
        except StorageFull:
            pass  # a key must work on a full disk, to delete items


def _new_secret() -> str:
    return _PREFIX + secrets.token_urlsafe(_SECRET_BYTES)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _check_expiry(expires_at: datetime | None) -> None:
    if expires_at is not None and expires_at <= datetime.now(UTC):
        raise ApiKeyRejected("the expiry of a key must be in the future")


def _expired(key: ApiKey, now: datetime) -> bool:
    return key.expires_at is not None and key.expires_at <= now


def _is_admin(key: ApiKey) -> bool:
    return Scope.ADMIN in key.scopes and key.galleries is None and not _expired(key, datetime.now(UTC))


def _numbers_of(connection: Connection, names: Collection[str]) -> builtins.list[int]:
    query = select(tables.galleries.c.name, tables.galleries.c.number).where(tables.galleries.c.name.in_(names))
    found = {row.name: row.number for row in connection.execute(query)}
    if missing := set(names) - found.keys():
        raise ApiKeyRejected(f"there is no gallery {', '.join(sorted(missing))}")
    return sorted(found.values())


def _all_keys(connection: Connection) -> builtins.list[ApiKey]:
    query = select(tables.api_keys).order_by(_keys.created_at, _keys.id)
    return _to_keys(connection, connection.execute(query).all())


def _to_keys(connection: Connection, rows: Iterable[Row[Any]]) -> builtins.list[ApiKey]:
    rows = list(rows)
    numbers = {number for row in rows for number in row.gallery_numbers or ()}
    names: dict[int, str] = {}
    if numbers:
        galleries = tables.galleries.c
        query = ADDRESSABLE.with_only_columns(galleries.number, galleries.name).where(galleries.number.in_(numbers))
        names = {row.number: row.name for row in connection.execute(query)}
    return [_to_key(row, names) for row in rows]


def _to_key(row: Row[Any], names: dict[int, str]) -> ApiKey:
    numbers = row.gallery_numbers
    return ApiKey(
        id=row.id,
        name=row.name,
        scopes=frozenset(map(Scope, row.scopes)),
        galleries=None if numbers is None else frozenset(names[number] for number in numbers if number in names),
        created_at=row.created_at,
        expires_at=row.expires_at,
        last_used_at=row.last_used_at,
        old_secret_expires_at=row.previous_expires_at,
        requests_per_minute=(row.limits or {}).get("requests_per_minute"),
    )
