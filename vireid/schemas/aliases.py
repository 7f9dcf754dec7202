"""Aliases of galleries."""

from __future__ import annotations

from vireid.schemas.base import Schema
from vireid.schemas.fields import Id

__all__ = ["Alias", "AliasTarget", "AliasesList"]


class Alias(Schema):
    """Another name for a gallery, valid in every path that names one."""

    alias: str
    gallery: str


class AliasTarget(Schema):
    """The gallery that an alias points to."""

    gallery: Id


class AliasesList(Schema):
    """Aliases in the order of their names."""

    aliases: tuple[Alias, ...]
