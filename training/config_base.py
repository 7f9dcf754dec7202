"""Base class for all parts of a configuration: immutable, without unknown keys, NaN or infinity."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Discriminator, Field, ModelWrapValidatorHandler, model_validator

__all__ = ["ConfigPart", "Fraction", "NonNegative", "kind_discriminator", "suggestion"]

Fraction = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return an unknown name with the closest known name and the list of all names."""
    names = sorted(known)
    nearest = difflib.get_close_matches(name, names, 1, 0.6)
    return f"{name!r}{f', did you mean {nearest[0]!r}?' if nearest else ':'} expected one of {', '.join(names)}"


class ConfigPart(BaseModel):
    """Part of a configuration; the error for an unknown key suggests the closest one."""

    former_keys: ClassVar[frozenset[str]] = frozenset()
    """Former names of keys that are still accepted."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="wrap")
    @classmethod
    def _name_unknown_keys(cls, fields: Any, build: ModelWrapValidatorHandler[Self]) -> Self:
        if isinstance(fields, dict):
            for key in sorted(map(str, fields.keys() - cls.model_fields.keys() - cls.former_keys)):
                raise ValueError(f"unknown key {suggestion(key, cls.model_fields)}")
        return build(fields)


def kind_discriminator(default: str) -> Discriminator:
    """Build a discriminator that selects a class of a union by ``kind``; without a kind, the ``default`` one."""

    def kind_of(part: object) -> str | None:
        return part.get("kind", default) if isinstance(part, dict) else getattr(part, "kind", None)

    return Discriminator(kind_of)
