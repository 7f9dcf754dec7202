"""The committed OpenAPI document is up to date and has the routes and names of the contract."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from server.api.examples import BODIES
from server.api.openapi import document as openapi_document
from server.app import create_app
from server.settings import Settings

COMMITTED = Path(__file__).resolve().parents[2] / "docs" / "openapi.json"
PROBLEM = "application/problem+json"
JSON, FORM = "application/json", "multipart/form-data"

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
    "/v1/galleries/{gallery}/summary": {"get"},
    "/v1/galleries/{gallery}/restore": {"post"},
    "/v1/galleries/{gallery}/reembed": {"post"},
    "/v1/galleries/{gallery}/calibrations": {"get", "post"},
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
    "/v1/keys/{key}/rotate": {"post"},
    "/v1/audit": {"get"},
    "/v1/audit/verify": {"get"},
    "/v1/retention": {"get"},
    "/v1/retention/confirm": {"post"},
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


def test_committed_document_is_up_to_date(document: dict[str, Any]) -> None:
    """To update it after an intended change, run ``make docs``."""
    assert json.loads(COMMITTED.read_text("utf-8")) == json.loads(json.dumps(document))


def test_app_and_command_give_the_same_document(document: dict[str, Any]) -> None:
    assert openapi_document() == document


def test_every_operation_has_a_summary_a_known_tag_and_a_description(document: dict[str, Any]) -> None:
    tags = {tag["name"] for tag in document["tags"] if tag["description"]}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert len(operation["tags"]) == 1, (path, method)
            assert set(operation["tags"]) <= tags, (path, method)
            assert operation["description"], (path, method)
            name = operation["operationId"].split("_v1_")[0].removesuffix(f"_{method}")
            assert operation["summary"] != name.replace("_", " ").title(), "the summary that FastAPI generates"


def test_routes_match_the_contract(document: dict[str, Any]) -> None:
    assert {path: set(methods) for path, methods in document["paths"].items()} == ROUTES


def test_every_operation_declares_its_problems(document: dict[str, Any]) -> None:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if path == "/healthz":
                continue
            answers = operation["responses"]
            assert {"401", "403", "422", "500"} <= answers.keys() or not path.startswith("/v1/"), (path, method)
            for status, answer in answers.items():
                assert int(status) < 400 or set(answer["content"]) == {PROBLEM}, (path, method, status)


def test_every_operation_has_an_example(document: dict[str, Any]) -> None:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            (sample,) = operation["x-codeSamples"]
            assert sample["source"].startswith("curl "), (path, method)
            assert "{" not in sample["source"].partition("$VIREID")[2], (path, method)
            for kind in operation.get("requestBody", {}).get("content", {}).keys() & {JSON, FORM}:
                assert f"{method.upper()} {path}" in BODIES, "add an example to server.api.examples"
                assert operation["requestBody"]["content"][kind]["example"], (path, method, kind)


@pytest.mark.parametrize(
    ("operation", "body"), [(name, kinds[JSON]) for name, kinds in BODIES.items() if JSON in kinds]
)
def test_example_bodies_match_their_schemas(document: dict[str, Any], operation: str, body: dict[str, Any]) -> None:
    method, _, path = operation.partition(" ")
    schema = document["paths"][path][method.lower()]["requestBody"]["content"][JSON]["schema"]
    Draft202012Validator({**schema, "components": document["components"]}).validate(body)


def test_problems_have_the_members_of_the_contract(document: dict[str, Any]) -> None:
    members = document["components"]["schemas"]["Problem"]["properties"]
    assert members.keys() == {"type", "title", "status", "detail", "instance", "request_id", "errors"}


def test_every_reference_points_to_a_component(document: dict[str, Any]) -> None:
    names = {reference.removeprefix("#/components/schemas/") for reference in references(document)}
    assert names <= document["components"]["schemas"].keys()


def test_request_schemas_forbid_unknown_fields(document: dict[str, Any]) -> None:
    bodies = {
        reference
        for methods in document["paths"].values()
        for operation in methods.values()
        for reference in references(operation.get("requestBody", {}))
    }
    for reference in bodies:
        schema = document["components"]["schemas"][reference.removeprefix("#/components/schemas/")]
        assert schema["additionalProperties"] is False, reference


def test_search_schemas_have_the_fields_of_the_contract(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    assert schemas["SearchQuery"]["properties"].keys() == {
        "k", "rerank", "fusion", "group_by", "min_score", "max_false_match_rate", "filter", "cursor",
        "exact", "max_expected_false_hits", "paginate", "feedback",
    }  # fmt: skip
    assert schemas["Filter"]["properties"].keys() == {
        "ids", "exclude_ids",
        "modality", "cameras", "exclude_cameras", "identities", "exclude_identities", "captured_from", "captured_to",
        "attributes", "exclude_attributes", "warnings", "exclude_warnings",
    }  # fmt: skip
    assert schemas["SearchAnswer"]["properties"].keys() == {
        "gallery", "model", "fingerprint", "modality", "warnings", "searched", "reranked", "hits", "groups",
        "next_cursor", "timing_ms", "exact", "recall", "calibration", "calibrations",
    }  # fmt: skip
    assert schemas["SearchHit"]["properties"].keys() == {
        "rank", "score", "false_match_rate", "rerank_distance", "item", "false_match_rate_interval", "below",
        "expected_false_hits",
    }  # fmt: skip
    metadata = {"id", "identity", "modality", "camera", "captured_at", "attributes", "warnings"}
    assert schemas["ItemFacts"]["properties"].keys() == metadata
    assert schemas["ItemDetails"]["properties"].keys() == metadata | {"content_sha256"}
    assert schemas["TimingMs"]["properties"].keys() == {"queue", "decode", "embed", "search", "total"}
