"""Reads request bodies into their models, after the caller was checked, and says so in the OpenAPI document."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from fastapi import HTTPException, Request
from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header
from pydantic import BaseModel, ValidationError

from server.api.errors import BodyTypeUnsupported, InvalidRequest, field_errors, invalid

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


async def read_form(request: Request, model: type[Body]) -> Body:
    """Read a multipart form into ``model``: files as bytes, in memory, so that no upload touches a disk.

    Raises:
        BodyTypeUnsupported: it is no multipart form.
        HTTPException: it is a broken one (400).
        InvalidRequest: it does not fit the model.
    """
    if media_type(request) != FORM:
        raise BodyTypeUnsupported([FORM])
    values: dict[str, Any] = {}
    for name, value in await _parts(request):
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


def form(model: type[Body]) -> Callable[[Request], Awaitable[Body]]:
    """:func:`read_form` as a dependency."""

    async def read(request: Request) -> Body:
        return await read_form(request, model)

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


async def _parts(request: Request) -> list[tuple[str, bytes | str]]:
    """Name and content of each part, in their order: the bytes of a file, the text of a field."""
    _, options = parse_options_header(request.headers["content-type"])
    found: list[tuple[str, bytes | str]] = []
    chunks: list[bytes] = []
    try:
        with PushMultipartParser(options.get("boundary", ""), max_segment_count=_MAX_PARTS) as parser:
            async for received in request.stream():
                for event in parser.parse(received) if received else ():
                    if isinstance(event, MultipartSegment):
                        part = event
                    elif event is not None:
                        chunks.append(event)
                    else:
                        content = b"".join(chunks)
                        found.append((part.name or "", content if part.filename is not None else content.decode()))
                        chunks.clear()
    except (MultipartError, UnicodeDecodeError):
        raise HTTPException(400) from None
    return found


def documented(bodies: Mapping[str, type[BaseModel]]) -> dict[str, Any]:
    """The ``requestBody`` of a route that reads its body itself: media type → model."""
    content = {kind: {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}} for kind, model in bodies.items()}
    return {"requestBody": {"required": True, "content": content}}
