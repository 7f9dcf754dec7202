"""The wire schemas: strict for requests, tolerant for responses of newer servers, and equal to the server's rules."""

from __future__ import annotations

import importlib
import pkgutil
from enum import StrEnum
from typing import Any

import pytest
from pydantic import ValidationError

import vireid.schemas
from server.domain import fields as domain_fields
from server.domain import types as domain
from server.jobs.types import JobState
from server.storage.api_keys import Scope
from vireid.schemas import fields, galleries, items, jobs, keys, search
from vireid.schemas.base import Schema
from vireid.schemas.erasures import ReceiptsPage
from vireid.schemas.health import Readiness
from vireid.schemas.jobs import JobFailuresPage
from vireid.schemas.search import SearchAnswer

ITEM = {
    "id": "a",
    "identity": None,
    "modality": "infrared",
    "camera": "c1",
    "captured_at": "2026-11-21T08:30:00Z",
    "attributes": {"bag": True, "height": 1.8},
    "warnings": ["blurred"],
}
HIT = {"rank": 1, "score": 0.5, "false_match_rate": None, "rerank_distance": None, "item": ITEM}
RESPONSES: dict[type[Schema], dict[str, Any]] = {
    SearchAnswer: {
        "gallery": "g",
        "model": "m",
        "fingerprint": "f",
        "modality": ["visible"],
        "warnings": [["too_dark"]],
        "searched": 1,
        "exact": True,
        "recall": None,
        "reranked": False,
        "hits": [HIT],
        "groups": [{"identity": None, "score": 0.5, "hits": [HIT]}],
        "next_cursor": None,
        "timing_ms": {"queue": 0, "decode": 0, "embed": 0, "search": 1, "total": 1},
    },
    Readiness: {
        "ready": True,
        "reasons": [],
        "models": [{"name": "m", "fingerprint": "f", "provider": "CPU", "precision": "fp32"}],
        "galleries": {"g": {"store_sequence": 1, "index_sequence": 1, "index": "exact", "recall": None}},
        "load": {"h": {"done": 1, "total": 2}},
        "recall": None,
        "queue_depth": 0,
        "version": "1",
    },
    ReceiptsPage: {
        "receipts": [
            {
                "id": "r",
                "gallery": "g",
                "at": "2026-11-21T08:30:00Z",
                "items": 1,
                "vectors": 1,
                "thumbnails": 0,
                "ids_sha256": "0",
                "left": {
                    "store": 0,
                    "memory": 0,
                    "snapshot": 0,
                    "log": False,
                    "replicas": False,
                    "backups": None,
                    "jobs": 0,
                },
            }
        ],
        "next_cursor": "x",
    },
    JobFailuresPage: {
        "failures": [
            {
                "name": "a.png",
                "error": {
                    "type": "t",
                    "title": "t",
                    "status": 422,
                    "detail": "d",
                    "instance": None,
                    "request_id": None,
                    "errors": [{"field": "id", "detail": "is required"}],
                },
            }
        ],
        "next_cursor": None,
    },
}


def schemas() -> list[type[Schema]]:
    modules = [
        importlib.import_module(f"vireid.schemas.{m.name}") for m in pkgutil.iter_modules(vireid.schemas.__path__)
    ]
    classes = {value for module in modules for value in vars(module).values() if isinstance(value, type)}
    return sorted((cls for cls in classes if issubclass(cls, Schema)), key=lambda cls: cls.__name__)


def with_unknown_fields(value: Any) -> Any:
    """Add a field to every object, as a newer server may; ``attributes``, whose names are free, stay as they are."""
    if isinstance(value, list):
        return [with_unknown_fields(entry) for entry in value]
    if not isinstance(value, dict):
        return value
    free = value.keys() <= {"bag", "height", "g", "h"}
    return {name: with_unknown_fields(entry) for name, entry in value.items()} | ({} if free else {"added_later": [1]})


@pytest.mark.parametrize("schema", RESPONSES, ids=lambda schema: schema.__name__)
def test_a_client_reads_the_response_of_a_newer_server(schema: type[Schema]) -> None:
    response = RESPONSES[schema]
    newer = with_unknown_fields(response)
    with pytest.raises(ValidationError, match="extra_forbidden"):
        schema.model_validate(newer)
    assert schema.model_validate(newer, extra="ignore") == schema.model_validate(response)


@pytest.mark.parametrize("schema", RESPONSES, ids=lambda schema: schema.__name__)
def test_a_response_is_read_back_as_it_was_sent(schema: type[Schema]) -> None:
    sent = schema.model_validate(RESPONSES[schema])
    assert schema.model_validate_json(sent.model_dump_json()) == sent


@pytest.mark.parametrize("schema", schemas(), ids=lambda schema: schema.__name__)
def test_every_schema_rejects_unknown_fields_by_default(schema: type[Schema]) -> None:
    with pytest.raises(ValidationError) as error:
        schema.model_validate({"unknown": 1})
    assert "extra_forbidden" in {found["type"] for found in error.value.errors()}


@pytest.mark.parametrize(
    ("wire", "own"),
    [
        (fields.CropWarning, domain.CropWarning),
        (fields.ModalityChoice, domain_fields.ModalityChoice),
        (galleries.VectorType, domain.VectorType),
        (jobs.JobState, JobState),
        (keys.Scope, Scope),
        (search.Fusion, domain.Fusion),
    ],
)
def test_enums_of_the_wire_have_the_values_of_the_domain(wire: type[StrEnum], own: type[StrEnum]) -> None:
    assert {member.name: member.value for member in wire} == {member.name: member.value for member in own}


@pytest.mark.parametrize(
    ("wire", "own"),
    [(items.ItemFields, domain_fields.ItemFields), (items.VectorFields, domain_fields.VectorFields)],
)
def test_entries_of_import_files_have_the_fields_of_the_wire(wire: type[Schema], own: Any) -> None:
    def structure(node: Any) -> Any:
        if isinstance(node, dict):
            return {name: structure(value) for name, value in node.items() if name not in {"description", "$defs"}}
        return [structure(value) for value in node] if isinstance(node, list) else node

    assert structure(wire.model_json_schema()) == structure(own.model_json_schema())


@pytest.mark.parametrize(
    "entry",
    [
        {},
        {"id": "."},
        {"id": "a/b"},
        {"identity": ""},
        {"camera": "c" * 257},
        {"captured_at": 1700000000},
        {"captured_at": "2026-11-21T08:30:00"},
        {"captured_at": "2026-11-21T10:30:00+02:00"},
        {"captured_at": "0001-01-01T00:00:00+14:00"},
        {"attributes": {str(i): i for i in range(33)}},
        {"attributes": {"a": "x" * 257}},
        {"attributes": {"a": None}},
        {"attributes": {"a": 1, "b": True, "c": 0.5}},
        {"vector": [1.0, 0.1]},
        {"vector": [0.6, 0.8]},
        {"vector": []},
    ],
)
def test_entries_of_import_files_are_validated_like_requests(entry: dict[str, Any]) -> None:
    complete = {"modality": "visible", "vector": [1.0], **entry}

    def validated(schema: Any) -> Any:
        try:
            return schema.model_validate(complete).model_dump()
        except ValidationError as error:
            return {found["loc"] for found in error.errors()}

    assert validated(items.VectorFields) == validated(domain_fields.VectorFields)
