"""The filter of items, which searches, lists, erasures and duplicates share."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from vireid.schemas.base import Schema
from vireid.schemas.fields import Attributes, CropWarning, Id, Label, Time

__all__ = ["Filter", "FilterParameters"]

_MAX_VALUES = 1000
_ALIASES = {"identity": "identities", "camera": "cameras", "warning": "warnings"}


class Filter(Schema):
    """Filter of items: an item passes if it matches every given field; null, empty or omitted means no restriction.

    An item without a value passes the `exclude_` field of that value.
    """

    ids: list[Id] | None = Field(None, max_length=_MAX_VALUES)
    exclude_ids: list[Id] | None = Field(None, max_length=_MAX_VALUES)
    modality: Literal["visible", "infrared", "opposite"] | None = Field(
        None, description="`opposite`: the modality that the query of a search does not have."
    )
    cameras: list[Label] | None = Field(None, max_length=_MAX_VALUES)
    exclude_cameras: list[Label] | None = Field(None, max_length=_MAX_VALUES)
    identities: list[Label] | None = Field(None, max_length=_MAX_VALUES)
    exclude_identities: list[Label] | None = Field(None, max_length=_MAX_VALUES)
    captured_from: Time | None = Field(None, description="Inclusive.")
    captured_to: Time | None = Field(None, description="Exclusive.")
    attributes: Attributes = Field(default={}, description="The item has all of these values.")
    exclude_attributes: Attributes = Field(default={}, description="The item has none of these values.")
    warnings: list[CropWarning] | None = Field(
        None, max_length=len(CropWarning), description="The item has at least one of these."
    )
    exclude_warnings: list[CropWarning] | None = Field(
        None, max_length=len(CropWarning), description="The item has none of these."
    )


def _parse_json(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise ValueError('must be a JSON object, such as {"site": "north"}') from None


AttributesText = Annotated[Attributes, BeforeValidator(_parse_json, json_schema_input_type=str)]
"""Attributes as JSON text, which a query parameter can hold."""


class FilterParameters(Filter):
    """A filter as query parameters: lists are repeated parameters, attributes are JSON text."""

    attributes: AttributesText = Field(default={}, description="JSON object; the item has all of these values.")
    exclude_attributes: AttributesText = Field(
        default={}, description="JSON object; the item has none of these values."
    )
    identity: list[Label] = Field(default=[], max_length=_MAX_VALUES, deprecated="Use `identities`.")
    camera: list[Label] = Field(default=[], max_length=_MAX_VALUES, deprecated="Use `cameras`.")
    warning: list[CropWarning] = Field(default=[], max_length=len(CropWarning), deprecated="Use `warnings`.")

    @model_validator(mode="after")
    def _check_aliases(self) -> Self:
        for alias, name in _ALIASES.items():
            if self.__dict__[alias] and self.__dict__[name]:
                raise ValueError(f"{alias} is an older name of {name}: give only {name}")
        return self

    def filter(self) -> Filter:
        """Return the filter, without the other parameters."""
        values: dict[str, Any] = {name: self.__dict__[name] for name in Filter.model_fields}
        values |= {name: self.__dict__[alias] for alias, name in _ALIASES.items() if self.__dict__[alias]}
        return Filter.model_construct(**values)
