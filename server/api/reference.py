"""Reference pages in HTML, without scripts or other hosts: the API at ``/docs``, problem types at ``/problems``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from html import escape
from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException

from server.api.problem_catalogue import CATALOGUE

__all__ = ["router"]

router = APIRouter(include_in_schema=False)

_REFERENCE = "#/components/schemas/"


@router.get("/docs")
async def api_page(request: Request) -> Response:
    """Return every operation and schema of the OpenAPI document as one page."""
    return Response(_api_page(request.app), media_type="text/html; charset=utf-8")


@router.get("/problems")
async def problems_page() -> Response:
    """Return the catalogue of problem types."""
    rows = (
        (f'<a href="problems/{entry.slug}">{entry.slug}</a>', "/".join(map(str, entry.statuses)), escape(entry.title))
        for entry in CATALOGUE.values()
    )
    return _page("Problem types", "".join(_table(("type", "status", "title"), rows)), root="")


@router.get("/problems/{slug}")
async def problem_page(slug: str) -> Response:
    """Return what a problem type means and what to do about it."""
    if slug not in CATALOGUE:
        raise HTTPException(404)
    entry = CATALOGUE[slug]
    body = (
        f"<p>Status {' or '.join(map(str, entry.statuses))}, type <code>/problems/{slug}</code></p>"
        f"<p>{_text(entry.cause)}</p><p><strong>What to do:</strong> {_text(entry.remedy)}</p>"
        '<p><a href="../problems">All problem types</a></p>'
    )
    return _page(entry.title, body, root="../")


@cache
def _api_page(app: Any) -> bytes:
    document = app.openapi()
    parts = [f"<p>{_text(document['info']['description'])} Version {escape(document['info']['version'])}. "]
    parts.append('<a href="openapi.json">OpenAPI document</a>, <a href="problems">problem types</a></p>')
    for tag in document["tags"]:
        parts.append(f"<h2>{escape(tag['name'])}</h2><p>{_text(tag['description'])}</p>")
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                if tag["name"] in operation["tags"]:
                    parts += _operation(method, path, operation)
    parts.append("<h2>Schemas</h2>")
    for name, schema in document["components"]["schemas"].items():
        parts += _schema(name, schema)
    return bytes(_page("HTTP API", "".join(parts), root="").body)


def _operation(method: str, path: str, operation: dict[str, Any]) -> Iterator[str]:
    yield f"<details><summary><code>{method.upper()} {escape(path)}</code> {escape(operation['summary'])}</summary>"
    yield f"<p>{_text(operation['description'])}</p>"
    rows = [
        (f"<code>{escape(p['name'])}</code>", p["in"], _type(p.get("schema", {})), _text(p.get("description", "")))
        for p in operation.get("parameters", [])
    ]
    if rows:
        yield from _table(("parameter", "in", "type", "description"), rows)
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        yield f"<p>Body <code>{escape(kind)}</code>: {_type(content.get('schema', {}))}</p>"
        if "example" in content:
            yield f"<pre>{escape(json.dumps(content['example'], indent=2))}</pre>"
    yield f"<pre>{escape(operation['x-codeSamples'][0]['source'])}</pre>"
    answers = (
        (code, escape(answer["description"]), ", ".join(_contents(answer)))
        for code, answer in operation["responses"].items()
    )
    yield from _table(("status", "response", "schema"), answers)
    yield "</details>"


def _contents(answer: dict[str, Any]) -> list[str]:
    return [
        _type(content["schema"]) if "schema" in content else kind for kind, content in answer.get("content", {}).items()
    ]


def _schema(name: str, schema: dict[str, Any]) -> Iterator[str]:
    yield f'<details id="{escape(name)}"><summary><code>{escape(name)}</code></summary>'
    yield f"<p>{_text(schema.get('description', ''))}</p>"
    required = schema.get("required", [])
    rows = [
        (
            f"<code>{escape(member)}</code>",
            _type(value),
            "required" if member in required else "",
            _text(value.get("description", "")),
        )
        for member, value in schema.get("properties", {}).items()
    ]
    if rows:
        yield from _table(("member", "type", "", "description"), rows)
    yield "</details>"


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = escape(schema["$ref"].removeprefix(_REFERENCE))
        return f'<a href="#{name}">{name}</a>'
    if parts := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(map(_type, parts))
    if "enum" in schema:
        return ", ".join(f"<code>{escape(str(value))}</code>" for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return escape(str(schema.get("type", "any")))


def _text(text: str) -> str:
    """Escape text, and turn the parts between backticks into code."""
    parts = escape(text).split("`")
    return "".join(f"<code>{part}</code>" if place % 2 else part for place, part in enumerate(parts))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield "<table><tr>" + "".join(f"<th>{cell}</th>" for cell in head) + "</tr>"
    for row in rows:
        yield "<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>"
    yield "</table>"


def _page(title: str, body: str, *, root: str) -> Response:
    html = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)} – vireid</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="stylesheet" href="{root}reference.css"></head><body><h1>{escape(title)}</h1>{body}</body></html>'
    )
    return Response(html, media_type="text/html; charset=utf-8")
