"""Aliases: other names for galleries, which can be moved from one gallery to another in one step."""

from __future__ import annotations

from fastapi import APIRouter

from server.api.app_state import StateDep
from server.api.auth import Admin, Reader
from server.api.dependencies import AliasName
from server.api.errors import problems
from vireid.schemas.aliases import Alias, AliasesList, AliasTarget

__all__ = ["router"]

router = APIRouter(prefix="/v1/aliases", tags=["galleries"])


@router.get("", summary="List aliases", responses=problems())
def list_aliases(state: StateDep, caller: Reader) -> AliasesList:
    """Return the aliases of the galleries that the API key covers, by name."""
    aliases = sorted(state.galleries.catalog.aliases().items())
    visible = [(alias, gallery) for alias, gallery in aliases if caller.covers(gallery)]
    return AliasesList(aliases=[Alias(alias=alias, gallery=gallery) for alias, gallery in visible])


@router.put("/{alias}", summary="Set an alias", responses=problems(404, 409, 507))
def set_alias(alias: AliasName, body: AliasTarget, state: StateDep, caller: Admin) -> Alias:
    """Create an alias or move it to another gallery. Each request sees either the old or the new gallery."""
    before = state.galleries.catalog.aliases().get(alias)
    state.galleries.catalog.set_alias(alias, body.gallery)
    state.audit.record(caller.key_id, "alias.set", body.gallery, {"alias": alias, "before": before})
    return Alias(alias=alias, gallery=body.gallery)


@router.delete("/{alias}", status_code=204, summary="Remove an alias", responses=problems(404))
def remove_alias(alias: AliasName, state: StateDep, caller: Admin) -> None:
    """Remove an alias; the gallery stays."""
    state.galleries.catalog.remove_alias(alias)
    state.audit.record(caller.key_id, "alias.remove", None, {"alias": alias})
