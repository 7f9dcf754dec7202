"""API keys."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Query

from server.api.app_state import StateDep
from server.api.auth import Admin
from server.api.conversion import to_key_details
from server.api.errors import problems
from server.api.paging import decode_cursor, split_page
from server.storage.api_keys import Scope
from vireid.schemas.keys import KeyRotation, KeysPage, KeyWithSecret, NewKey
from vireid.schemas.paging import PageQuery

__all__ = ["router"]

router = APIRouter(prefix="/v1/keys", tags=["access"])


@router.get("", summary="List API keys", responses=problems())
def list_keys(state: StateDep, _caller: Admin, query: Annotated[PageQuery, Query()]) -> KeysPage:
    """Return the API keys by id, without their secrets."""
    after = decode_cursor(query.cursor)
    found = sorted((key for key in state.keys.list() if after is None or key.id > after), key=lambda key: key.id)
    keys, next_cursor = split_page(found[: query.limit + 1], query.limit, lambda key: key.id)
    return KeysPage(keys=[to_key_details(key) for key in keys], next_cursor=next_cursor)


@router.post("", status_code=201, summary="Create an API key", responses=problems())
def create_key(body: NewKey, state: StateDep, caller: Admin) -> KeyWithSecret:
    """Create an API key. The response shows its secret, which cannot be retrieved later."""
    galleries = None if body.galleries is None else frozenset(body.galleries)
    key, secret = state.keys.create(
        body.name,
        frozenset(map(Scope, body.scopes)),
        galleries,
        expires_at=body.expires_at,
        requests_per_minute=body.limits.requests_per_minute,
    )
    state.audit.record(caller.key_id, "key.create", None, {"key": key.id, "scopes": sorted(key.scopes)})
    return KeyWithSecret(**dict(to_key_details(key)), secret=secret)


@router.post("/{key}/rotate", summary="Rotate an API key", responses=problems(404, 507))
def rotate_key(key: str, body: KeyRotation, state: StateDep, caller: Admin) -> KeyWithSecret:
    """Give an API key a new secret, which only this response shows. The old one is accepted for a while."""
    rotated, secret = state.keys.rotate(key, timedelta(seconds=body.overlap_s), expires_at=body.expires_at)
    state.audit.record(caller.key_id, "key.rotate", None, {"key": key, "overlap_s": body.overlap_s})
    return KeyWithSecret(**dict(to_key_details(rotated)), secret=secret)


@router.delete("/{key}", status_code=204, summary="Delete an API key", responses=problems(404, 409))
def delete_key(key: str, state: StateDep, caller: Admin) -> None:
    """Delete an API key; it is rejected from then on. The last key that can manage keys cannot be deleted."""
    state.keys.delete(key)
    state.audit.record(caller.key_id, "key.delete", None, {"key": key})
