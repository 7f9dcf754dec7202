"""Example requests of the OpenAPI document: the body of each operation that has one, and a curl command for each."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

__all__ = ["BODIES", "add_examples"]

_FORM, _JSON = "multipart/form-data", "application/json"

BODIES: Mapping[str, Mapping[str, Any]] = {
    "PUT /v1/aliases/{alias}": {_JSON: {"gallery": "night-2026-11"}},
    "POST /v1/compare": {_FORM: {"images": ["@day.png", "@night.png"]}},
    "POST /v1/embeddings": {_FORM: {"images": ["@day.png"], "modality": "visible"}},
    "POST /v1/galleries": {_JSON: {"name": "night", "retention_days": 30, "description": "north gate"}},
    "PATCH /v1/galleries/{gallery}": {_JSON: {"retention_days": 14}},
    "POST /v1/galleries/{gallery}/calibrations": {_JSON: {"disjoint_cameras": [["c1", "c7"]]}},
    "POST /v1/galleries/{gallery}/imports": {_JSON: {"directory": "/import/night"}},
    "POST /v1/galleries/{gallery}/items": {
        _FORM: {"images": ["@night.png"], "items": [{"id": "c3-0001", "modality": "infrared", "camera": "c3"}]}
    },
    "PATCH /v1/galleries/{gallery}/items/{item}": {_JSON: {"identity": "p17", "camera": None}},
    "POST /v1/galleries/{gallery}/reembed": {_JSON: {"model": "baseline"}},
    "POST /v1/galleries/{gallery}/search": {
        _FORM: {"images": ["@day.png"], "query": {"k": 5, "filter": {"modality": "opposite"}}},
        _JSON: {"item_id": "c3-0001", "query": {"k": 5, "filter": {"exclude_cameras": ["c3"]}}},
    },
    "POST /v1/galleries/{gallery}/searches": {
        _JSON: {"searches": [{"item_id": "c3-0001"}, {"item_id": "c3-0002", "query": {"k": 1}}]}
    },
    "POST /v1/galleries/{gallery}/vectors": {
        _JSON: {"items": [{"id": "c3-0001", "modality": "infrared", "vector": [0.6, 0.8]}]}
    },
    "POST /v1/keys": {_JSON: {"name": "desk", "scopes": ["search"], "galleries": ["night"]}},
    "POST /v1/keys/{key}/rotate": {_JSON: {"overlap_s": 3600}},
}
"""Example bodies by operation and media type. A text that begins with ``@`` stands for a file."""

_PATH_VALUES = {"gallery": "night", "item": "c3-0001", "alias": "latest", "name": "baseline"}


def add_examples(document: dict[str, Any]) -> None:
    """Add to each operation its example bodies, and a curl command as ``x-codeSamples``."""
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            name = f"{method.upper()} {path}"
            content, bodies = operation.get("requestBody", {}).get("content", {}), BODIES.get(name, {})
            for kind, body in bodies.items():
                content[kind]["example"] = body
            files = [kind for kind in content if kind not in (_FORM, _JSON)]
            media_type: str | None = next(iter(bodies), files[0] if files else None)
            source = _curl(method.upper(), path, media_type, bodies.get(media_type or ""))
            operation["x-codeSamples"] = [{"lang": "Shell", "label": "curl", "source": source}]


def _curl(method: str, path: str, media_type: str | None, body: Mapping[str, Any] | None) -> str:
    values = {part: part.upper() for part in ("erasure", "job", "key")} | _PATH_VALUES
    for name, value in values.items():
        path = path.replace(f"{{{name}}}", value)
    words = ["curl"] + ([] if method == "GET" or body else ["-X", method])
    if body and method not in ("POST", "GET"):
        words += ["-X", method]
    if media_type == _FORM and body:
        for name, value in body.items():
            for part in value if name == "images" else [value]:
                words += ["-F", f"{name}={part if isinstance(part, str) else json.dumps(part)}"]
    elif body:
        words += ["-H", f"Content-Type: {media_type}", "-d", json.dumps(body)]
    elif media_type:
        words += ["-H", f"Content-Type: {media_type}", "--data-binary", "@FILE"]
    return f'{shlex.join(words)} "$VIREID{path}"'
