"""The published contract: what the server says of itself is committed, and says what the design says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from server.app import create_app
from server.settings import Settings

COMMITTED = Path(__file__).resolve().parents[2] / "docs" / "openapi.json"
PROBLEM = "application/problem+json"

ROUTES = {
    "/healthz": {"get"},
    "/readyz": {"get"},
    "/metrics": {"get"},
    "/v1/limits": {"get"},
    "/v1/models": {"get"},
    "/v1/models/{name}": {"get"},
    "/v1/embeddings": {"post"},
    "/v1/compare": {"post"},
    "/v1/galleries": {"get", "post"},
    "/v1/galleries/{gallery}": {"get", "patch", "delete"},
    "/v1/aliases": {"get"},
    "/v1/aliases/{alias}": {"put", "delete"},
    "/v1/erasures": {"get"},
    "/v1/erasures/{erasure}": {"get"},
    "/v1/galleries/{gallery}/items": {"get", "post", "delete"},
    "/v1/galleries/{gallery}/items/{item}": {"get", "patch", "delete"},
    "/v1/galleries/{gallery}/items/{item}/image": {"get"},
    "/v1/galleries/{gallery}/vectors": {"post"},
    "/v1/galleries/{gallery}/imports": {"post"},
    "/v1/galleries/{gallery}/snapshot": {"get"},
    "/v1/galleries/{gallery}/restore": {"post"},
    "/v1/galleries/{gallery}/reembed": {"post"},
    "/v1/galleries/{gallery}/duplicates": {"get"},
    "/v1/galleries/{gallery}/search": {"post"},
    "/v1/galleries/{gallery}/searches": {"post"},
    "/v1/jobs": {"get"},
    "/v1/jobs/{job}": {"get"},
    "/v1/jobs/{job}/events": {"get"},
    "/v1/jobs/{job}/cancel": {"post"},
    "/v1/jobs/{job}/failures": {"get"},
    "/v1/keys": {"get", "post"},
    "/v1/keys/{key}": {"delete"},
    "/v1/audit": {"get"},
}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return create_app(Settings()).openapi()


def references(node: object) -> set[str]:
    if isinstance(node, dict):
        own = {node["$ref"]} if "$ref" in node else set()
        return own.union(*(references(value) for value in node.values()))
    if isinstance(node, list):
        return set().union(*(references(value) for value in node))
    return set()


def test_the_committed_document_is_the_servers(document: dict[str, Any]) -> None:
    """After a change on purpose: ``python -m server.api.openapi > docs/openapi.json``."""
    assert json.loads(COMMITTED.read_text("utf-8")) == json.loads(json.dumps(document))


def test_the_routes_are_those_of_the_contract(document: dict[str, Any]) -> None:
    assert {path: set(methods) for path, methods in document["paths"].items()} == ROUTES


def test_every_route_declares_its_problems(document: dict[str, Any]) -> None:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if path == "/healthz":
                continue
            answers = operation["responses"]
            assert {"401", "403", "422", "500"} <= answers.keys() or not path.startswith("/v1/"), (path, method)
            for status, answer in answers.items():
                assert int(status) < 400 or set(answer["content"]) == {PROBLEM}, (path, method, status)


def test_a_problem_has_the_members_of_the_contract(document: dict[str, Any]) -> None:
    members = document["components"]["schemas"]["Problem"]["properties"]
    assert members.keys() == {"type", "title", "status", "detail", "instance", "request_id", "errors"}


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    names = {reference.removeprefix("#/components/schemas/") for reference in references(document)}
    assert names <= document["components"]["schemas"].keys()


def test_no_request_takes_unknown_fields(document: dict[str, Any]) -> None:
    bodies = {
        reference
        for methods in document["paths"].values()
        for operation in methods.values()
        for reference in references(operation.get("requestBody", {}))
    }
    for reference in bodies:
        schema = document["components"]["schemas"][reference.removeprefix("#/components/schemas/")]
        assert schema["additionalProperties"] is False, reference


def test_the_names_of_search_are_those_of_the_contract(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    assert schemas["SearchQuery"]["properties"].keys() == {
        "k", "rerank", "fusion", "group_by", "min_score", "max_false_match_rate", "filter", "cursor",
        "exact",
    }  # fmt: skip
    assert schemas["SearchFilter"]["properties"].keys() == {
        "modality", "cameras", "exclude_cameras", "identities", "exclude_identities", "captured_from", "captured_to",
        "attributes", "exclude_attributes", "warnings", "exclude_warnings",
    }  # fmt: skip
    assert schemas["SearchAnswer"]["properties"].keys() == {
        "gallery", "model", "fingerprint", "modality", "warnings", "searched", "reranked", "hits", "groups",
        "next_cursor", "timing_ms", "exact", "recall",
    }  # fmt: skip
    assert schemas["SearchHit"]["properties"].keys() == {
        "rank", "score", "false_match_rate", "rerank_distance", "item",
    }  # fmt: skip
    facts = {"id", "identity", "modality", "camera", "captured_at", "attributes", "warnings"}
    assert schemas["ItemFacts"]["properties"].keys() == facts
    assert schemas["ItemDetails"]["properties"].keys() == facts | {"content_sha256"}
    assert schemas["TimingMs"]["properties"].keys() == {"queue", "decode", "embed", "search", "total"}
