"""The OpenAPI document, with the bodies that routes read themselves; ``python -m server.api.openapi`` prints it."""

from __future__ import annotations

import json
import sys
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from server.api import schemas

__all__ = ["document"]

_READ_BY_HAND = (
    schemas.CompareForm,
    schemas.EmbeddingsForm,
    schemas.ImportDirectory,
    schemas.ItemFields,
    schemas.ItemsForm,
    schemas.Problem,
    schemas.SearchBatch,
    schemas.SearchByStored,
    schemas.SearchForm,
    schemas.VectorFields,
    schemas.VectorItems,
)


def document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document of ``app``."""
    found = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    _, definitions = models_json_schema(
        [(model, "validation") for model in _READ_BY_HAND], ref_template="#/components/schemas/{model}"
    )
    found["components"]["schemas"] = dict(sorted({**definitions["$defs"], **found["components"]["schemas"]}.items()))
    found["components"]["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    }
    found["security"] = [{"bearer": []}, {"header": []}, {}]
    return found


def main() -> None:
    """Print the document of the default settings."""
    from server.app import create_app
    from server.settings import Settings

    json.dump(create_app(Settings()).openapi(), sys.stdout, indent=2, sort_keys=True)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
