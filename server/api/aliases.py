"""Aliases: other names for galleries, moved from one to the next in one step."""

from __future__ import annotations

from fastapi import APIRouter

from server.api.auth import Admin, Reader
from server.api.errors import problems
from server.api.schemas import Alias, AliasesList, AliasName, AliasTarget
from server.api.service import ServiceDep

__all__ = ["router"]

router = APIRouter(prefix="/v1/aliases", tags=["galleries"])


@router.get("", responses=problems())
def list_aliases(service: ServiceDep, caller: Reader) -> AliasesList:
    """The aliases of the galleries that the key covers, by name."""
    known = sorted(service.galleries.aliases().items())
    covered = [pair for pair in known if caller.galleries is None or pair[1] in caller.galleries]
    return AliasesList(aliases=[Alias(alias=alias, gallery=gallery) for alias, gallery in covered])


@router.put("/{alias}", responses=problems(404, 409, 507))
def set_alias(alias: AliasName, body: AliasTarget, service: ServiceDep, caller: Admin) -> Alias:
    """Have the alias stand for a gallery, from now on if it stood for another: each request sees one or the other."""
    before = service.galleries.aliases().get(alias)
    service.galleries.set_alias(alias, body.gallery)
    service.audit.record(caller.key_id, "alias.set", body.gallery, {"alias": alias, "before": before})
    return Alias(alias=alias, gallery=body.gallery)


@router.delete("/{alias}", status_code=204, responses=problems(404))
def remove_alias(alias: AliasName, service: ServiceDep, caller: Admin) -> None:
    """Take the alias away; the gallery stays."""
    service.galleries.remove_alias(alias)
    service.audit.record(caller.key_id, "alias.remove", None, {"alias": alias})
