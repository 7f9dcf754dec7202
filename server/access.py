"""API keys: who may do what, and where."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Engine, Row, delete, insert, select

from server.errors import BadKey, KeyNotFound, Unauthorized
from server.gallery import tables
from server.gallery.database import reading, writing
from server.gallery.moments import from_micros, to_micros

__all__ = ["Key", "Keys", "Scope"]

_PREFIX = "vireid_"
_SECRET_BYTES = 32


class Scope(StrEnum):
    """What a key opens."""

    SEARCH = "search"
    WRITE = "write"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Key:
    """A key without its secret. ``galleries`` None: all of them, also those to come."""

    id: str
    name: str
    scopes: frozenset[Scope]
    galleries: frozenset[str] | None
    created_at: datetime


class Keys:
    """The keys in the database of an engine (``SqlStore.engine``). Thread-safe.

    A secret is random (256 bits) and kept only as its SHA-256: a slow hash protects guessable secrets, which these are
    not. A deleted key stops working at once.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def create(self, name: str, scopes: Collection[Scope], galleries: Collection[str] | None) -> tuple[Key, str]:
        """A new key and its secret, which nobody can learn again.

        Raises:
            BadKey: no scope, no gallery in ``galleries``, or one that is not there.
        """
        if not scopes:
            raise BadKey("a key needs at least one scope")
        if galleries is not None and not galleries:
            raise BadKey("a key that is limited to galleries needs at least one")
        secret = _PREFIX + secrets.token_urlsafe(_SECRET_BYTES)
        values = {
            "id": f"key_{secrets.token_hex(8)}",
            "name": name,
            "secret_sha256": _digest(secret),
            "scopes": sorted(scopes),
            "galleries": None if galleries is None else sorted(galleries),
            "created_at": to_micros(datetime.now(UTC)),
        }
        with writing(self._engine) as connection:
            if galleries is not None:
                query = select(tables.galleries.c.name).where(tables.galleries.c.name.in_(galleries))
                if missing := set(galleries) - set(connection.scalars(query)):
                    raise BadKey(f"there is no gallery {', '.join(sorted(missing))}")
            row = connection.execute(insert(tables.api_keys).values(values).returning(tables.api_keys)).one()
        return _to_key(row), secret

    def verify(self, secret: str) -> Key:
        """The key of a secret. Raises ``Unauthorized`` for one that nobody was given."""
        digest = _digest(secret)
        query = select(tables.api_keys).where(tables.api_keys.c.secret_sha256 == digest)
        with reading(self._engine) as connection:
            row = connection.execute(query).one_or_none()
        if row is None or not hmac.compare_digest(row.secret_sha256, digest):
            raise Unauthorized
        return _to_key(row)

    def list(self) -> list[Key]:
        """All keys, oldest first."""
        query = select(tables.api_keys).order_by(tables.api_keys.c.created_at, tables.api_keys.c.id)
        with reading(self._engine) as connection:
            return [_to_key(row) for row in connection.execute(query)]

    def delete(self, id: str) -> None:
        """Take a key away. Raises ``KeyNotFound``."""
        with writing(self._engine) as connection:
            if not connection.execute(delete(tables.api_keys).where(tables.api_keys.c.id == id)).rowcount:
                raise KeyNotFound(id)

    def any_admin(self) -> bool:
        """Whether some key has the scope ``admin``."""
        return any(Scope.ADMIN in key.scopes for key in self.list())


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _to_key(row: Row[Any]) -> Key:
    return Key(
        id=row.id,
        name=row.name,
        scopes=frozenset(map(Scope, row.scopes)),
        galleries=None if row.galleries is None else frozenset(row.galleries),
        created_at=from_micros(row.created_at),
    )
