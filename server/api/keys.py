"""API keys."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from server.api.auth import Admin
from server.api.errors import problems
from server.api.paging import after, page
from server.api.schemas import KeyFacts, KeysPage, KeyWithSecret, NewKey, Page
from server.api.service import ServiceDep

__all__ = ["router"]

router = APIRouter(prefix="/v1/keys", tags=["access"])


@router.get("", responses=problems())
def list_keys(service: ServiceDep, _caller: Admin, wanted: Annotated[Page, Query()]) -> KeysPage:
    """The keys, by id, without their secrets."""
    behind = after(wanted.cursor)
    keys = sorted((key for key in service.keys.list() if behind is None or key.id > behind), key=lambda key: key.id)
    kept, following = page(keys[: wanted.limit + 1], wanted.limit, lambda key: key.id)
    return KeysPage(keys=[KeyFacts.of(key) for key in kept], next_cursor=following)


@router.post("", status_code=201, responses=problems())
def create_key(body: NewKey, service: ServiceDep, caller: Admin) -> KeyWithSecret:
    """Create a key; the answer shows its secret, and nothing ever will again."""
    galleries = None if body.galleries is None else frozenset(body.galleries)
    key, secret = service.keys.create(body.name, frozenset(body.scopes), galleries)
    service.audit.record(caller.key_id, "key.create", None, {"key": key.id, "scopes": sorted(key.scopes)})
    return KeyWithSecret.created(key, secret)


@router.delete("/{key}", status_code=204, responses=problems(404))
def delete_key(key: str, service: ServiceDep, caller: Admin) -> None:
    """Delete a key; it is refused from then on."""
    service.keys.delete(key)
    service.audit.record(caller.key_id, "key.delete", None, {"key": key})
