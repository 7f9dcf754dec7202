"""Reads request bodies into their models, after the caller was checked, and says so in the OpenAPI document."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError

from server.api.errors import BodyTypeUnsupported, InvalidRequest, field_errors, invalid
from server.api.service import service_of

__all__ = ["FORM", "JSON", "NDJSON", "documented", "form", "media_type", "read_form", "read_json"]

FORM = "multipart/form-data"
JSON = "application/json"
NDJSON = "application/x-ndjson"

_REPEATED = {"images", "modality"}
_MAX_PARTS = 10_000  # the real limit is ours to state, with a problem of its own

Body = TypeVar("Body", bound=BaseModel)


def media_type(request: Request) -> str:
    """Media type of the body, lower case, without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


@asynccontextmanager
async def read_form(request: Request, model: type[Body]) -> AsyncIterator[Body]:
    """Read a multipart form into ``model``; its files are open within the block.

    Raises:
        BodyTypeUnsupported: it is no multipart form.
        InvalidRequest: it does not fit the model.
    """
    if media_type(request) != FORM:
        raise BodyTypeUnsupported([FORM])
    limit = service_of(request.scope).settings.max_body_bytes
    async with request.form(max_files=_MAX_PARTS, max_fields=_MAX_PARTS, max_part_size=limit) as fields:
        values: dict[str, Any] = {}
        for name, value in fields.multi_items():
            if name in _REPEATED:
                values.setdefault(name, []).append(value)
            elif name in values:
                raise invalid(name, "is given more than once")
            else:
                values[name] = value
        try:
            body = model.model_validate(values)
        except ValidationError as error:
            raise InvalidRequest(field_errors(error.errors())) from None
        yield body


def form(model: type[Body]) -> Callable[[Request], AsyncIterator[Body]]:
    """:func:`read_form` as a dependency."""

    async def read(request: Request) -> AsyncIterator[Body]:
        async with read_form(request, model) as body:
            yield body

    return read


async def read_json(request: Request, model: type[Body]) -> Body:
    """Read a JSON body into ``model``.

    Raises:
        InvalidRequest: it is no JSON, or does not fit the model.
    """
    try:
        return model.model_validate_json(await request.body())
    except ValidationError as error:
        raise InvalidRequest(field_errors(error.errors())) from None


def documented(bodies: Mapping[str, type[BaseModel]]) -> dict[str, Any]:
    """The ``requestBody`` of a route that reads its body itself: media type → model."""
    content = {kind: {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}} for kind, model in bodies.items()}
    return {"requestBody": {"required": True, "content": content}}
