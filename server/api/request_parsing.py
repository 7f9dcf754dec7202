"""Parsing of request bodies, after the caller was checked, and their description in the OpenAPI document."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError

from server.api.errors import BodyTypeUnsupported
from server.api.multipart_form import parts_of
from server.domain.validation import InvalidRequest, field_errors, invalid

__all__ = ["FORM", "JSON", "NDJSON", "TAR", "form_body", "media_type", "read_form", "read_json", "request_body"]

FORM = "multipart/form-data"
JSON = "application/json"
NDJSON = "application/x-ndjson"
TAR = "application/x-tar"

_FILES = {"images"}
_REPEATED = {"images", "modality"}

Body = TypeVar("Body", bound=BaseModel)


def media_type(request: Request) -> str:
    """Return the media type of the body in lower case, without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read_form(request: Request, model: type[Body]) -> Body:
    """Parse a multipart form into ``model``. Files are kept in memory, so that no upload is written to disk.

    Raises:
        BodyTypeUnsupported: the body is not a multipart form.
        MalformedBody: the form is malformed.
        InvalidRequest: the form does not match the model.
    """
    if media_type(request) != FORM:
        raise BodyTypeUnsupported([FORM])
    values: dict[str, Any] = {}
    for name, value in await parts_of(request, _FILES):
        if name in _REPEATED:
            values.setdefault(name, []).append(value)
        elif name in values:
            raise invalid(name, "is given more than once")
        else:
            values[name] = value
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise InvalidRequest(field_errors(error.errors())) from None


def form_body(model: type[Body]) -> Callable[[Request], Awaitable[Body]]:
    """:func:`read_form` as a dependency."""

    async def read(request: Request) -> Body:
        return await read_form(request, model)

    return read


async def read_json(request: Request, model: type[Body]) -> Body:
    """Parse a JSON body into ``model``.

    Raises:
        InvalidRequest: the body is not JSON or does not match the model.
    """
    try:
        return model.model_validate_json(await request.body())
    except ValidationError as error:
        raise InvalidRequest(field_errors(error.errors())) from None


def request_body(bodies: Mapping[str, type[BaseModel]]) -> dict[str, Any]:
    """Return the ``requestBody`` of a route that parses its body itself, from a model by media type."""
    content = {kind: {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}} for kind, model in bodies.items()}
    return {"requestBody": {"required": True, "content": content}}
