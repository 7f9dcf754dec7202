"""The OpenAPI document; ``python -m server.api.openapi`` prints it."""

from __future__ import annotations

import json
import re
import sys
from functools import cache
from importlib.metadata import version
from typing import Any

from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from server.api.case_reference import REFERENCE_HEADERS
from server.api.examples import add_examples
from server.api.routes import ROUTES
from vireid.schemas.compare import CompareForm
from vireid.schemas.embeddings import EmbeddingsForm
from vireid.schemas.imports import ImportDirectory
from vireid.schemas.items import ItemFields, ItemsForm, VectorFields, VectorItems
from vireid.schemas.problems import Problem
from vireid.schemas.search import SearchBatch, SearchByStored, SearchForm

__all__ = ["document"]

TITLE = "vireid"
DESCRIPTION = "Search for a person across visible and infrared cameras."

_BODIES = (  # read by the routes themselves, so FastAPI does not know them
    CompareForm,
    EmbeddingsForm,
    ImportDirectory,
    ItemFields,
    ItemsForm,
    Problem,
    SearchBatch,
    SearchByStored,
    SearchForm,
    VectorFields,
    VectorItems,
)

_COMPONENT_NAMES = {  # names of version 1 of the contract, which generated clients use
    "DeletionResult": "Deleted",
    "GalleryDetails": "GalleryFacts",
    "ItemSummary": "ItemFacts",
    "JobStatus": "JobFacts",
    "KeyDetails": "KeyFacts",
    "ReembedRequest": "OtherModel",
    "RemainingData": "Left",
    "WriteResults": "Written",
}
_REFERENCE = "#/components/schemas/"

_TAGS = {
    "search": "Search a gallery.",
    "embeddings": "Embed and compare crops without storing them.",
    "galleries": "Galleries, their aliases and their archives.",
    "items": "Items of a gallery, duplicates and erasure receipts.",
    "jobs": "Imports, restores, re-embedding, and the jobs that they start.",
    "models": "Loaded models.",
    "access": "API keys and audit log.",
    "service": "Health, limits and metrics of the server.",
}


@cache
def document() -> dict[str, Any]:
    """Return the OpenAPI document of the API."""
    found = get_openapi(
        title=TITLE,
        version=version("vireid"),
        description=DESCRIPTION,
        routes=ROUTES,
        tags=[{"name": name, "description": text} for name, text in _TAGS.items()],
    )
    _, definitions = models_json_schema(
        [(model, "validation") for model in _BODIES], ref_template=f"{_REFERENCE}{{model}}"
    )
    schemas = {**definitions["$defs"], **found["components"]["schemas"]}
    found["components"]["schemas"] = dict(sorted(schemas.items()))
    found["components"]["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    }
    _add_reference_headers(found["paths"])
    found["security"] = [{"bearer": []}, {"header": []}, {}]
    add_examples(found)
    return _with_component_names(found)


def _add_reference_headers(paths: dict[str, Any]) -> None:
    for path, operations in paths.items():
        if path.startswith("/v1/"):
            for operation in operations.values():
                operation["parameters"] = [*operation.get("parameters", []), *REFERENCE_HEADERS]


def _with_component_names(found: dict[str, Any]) -> dict[str, Any]:
    """Rename components, in their titles and references too, from class names to the names of the contract."""
    schemas = found["components"]["schemas"]
    for class_name, name in _COMPONENT_NAMES.items():
        schemas[name] = {**schemas.pop(class_name), "title": name}
    reference = re.compile(rf'"{_REFERENCE}({"|".join(_COMPONENT_NAMES)})"')
    text = reference.sub(lambda match: f'"{_REFERENCE}{_COMPONENT_NAMES[match[1]]}"', json.dumps(found))
    renamed: dict[str, Any] = json.loads(text)
    return renamed


if __name__ == "__main__":
    json.dump(document(), sys.stdout, indent=2, sort_keys=True)
    sys.stdout.write("\n")
