"""One filter: searches, lists, counts, duplicates and erasures select the same items by it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.server.calls import add, check_problem, search
from tests.server.image_files import crop
from vireid.schemas.filters import Filter

ENTRIES: list[dict[str, Any]] = [
    {"id": "a", "identity": "x", "modality": "visible", "camera": "c1", "captured_at": "2026-01-01T00:00:00Z"},
    {"id": "b", "identity": "y", "modality": "infrared", "camera": "c2", "captured_at": "2026-01-02T00:00:00Z"},
    {"id": "c", "identity": "x", "modality": "infrared", "camera": "c3", "attributes": {"site": "north", "floor": 2}},
    {"id": "d", "modality": "visible", "attributes": {"site": "south"}},
]
FILTERS: list[tuple[dict[str, Any], set[str]]] = [
    ({"ids": ["a", "d", "unknown"]}, {"a", "d"}),
    ({"exclude_ids": ["a", "unknown"]}, {"b", "c", "d"}),
    ({"modality": "infrared"}, {"b", "c"}),
    ({"cameras": ["c1", "c2"]}, {"a", "b"}),
    ({"exclude_cameras": ["c1"]}, {"b", "c", "d"}),
    ({"identities": ["x"]}, {"a", "c"}),
    ({"exclude_identities": ["x"]}, {"b", "d"}),
    ({"captured_from": "2026-01-02T00:00:00Z"}, {"b"}),
    ({"captured_to": "2026-01-02T00:00:00Z"}, {"a"}),
    ({"attributes": {"site": "north", "floor": 2}}, {"c"}),
    ({"exclude_attributes": {"site": "north"}}, {"a", "b", "d"}),
    ({"warnings": ["too_dark"]}, set()),
    ({"exclude_warnings": ["too_dark"]}, {"a", "b", "c", "d"}),
]
DEPRECATED: list[tuple[dict[str, Any], set[str]]] = [({"identity": "x"}, {"a", "c"}), ({"camera": ["c2"]}, {"b"})]


def as_params(where: Mapping[str, Any]) -> dict[str, Any]:
    return {name: json.dumps(value) if isinstance(value, dict) else value for name, value in where.items()}


@pytest.fixture
def filled(client: TestClient, gallery: str) -> str:
    assert add(client, gallery, [crop(1)] * 4, ENTRIES).status_code == 201
    return gallery


def test_table_has_every_field_of_the_filter() -> None:
    assert {name for where, _ in FILTERS for name in where} == Filter.model_fields.keys()


@pytest.mark.parametrize(("where", "expected"), FILTERS, ids=lambda value: ",".join(sorted(value)))
def test_search_lists_and_duplicates_select_the_same_items(
    client: TestClient, filled: str, where: dict[str, Any], expected: set[str]
) -> None:
    params, path = as_params(where), f"/v1/galleries/{filled}"
    found = search(client, filled, [crop(1)], "visible", filter=where).json()
    assert {hit["item"]["id"] for hit in found["hits"]} == expected
    listed = client.get(f"{path}/items", params=params | {"limit": 1, "count": True}).json()
    assert listed["total"] == len(expected)
    assert {item["id"] for item in client.get(f"{path}/items", params=params).json()["items"]} == expected
    pairs = client.get(f"{path}/duplicates", params=params | {"min_score": -1}).json()
    assert pairs["items"] == len(expected)


@pytest.mark.parametrize(("where", "expected"), FILTERS + DEPRECATED, ids=lambda value: ",".join(sorted(value)))
def test_erasure_deletes_what_the_list_shows(
    client: TestClient, filled: str, where: dict[str, Any], expected: set[str]
) -> None:
    path = f"/v1/galleries/{filled}/items"
    assert {item["id"] for item in client.get(path, params=as_params(where)).json()["items"]} == expected
    assert client.delete(path, params=as_params(where)).json()["deleted"] == len(expected)
    assert {item["id"] for item in client.get(path).json()["items"]} == {"a", "b", "c", "d"} - expected


def test_list_counts_only_when_asked(client: TestClient, filled: str) -> None:
    assert client.get(f"/v1/galleries/{filled}/items").json()["total"] is None


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"modality": "opposite"}, "modality"),
        ({"attributes": "north"}, "attributes"),
        ({"attributes": "[" * 20_000}, "attributes"),
        ({"attributes": '{"a": null}'}, None),
        ({"identity": "x", "identities": "y"}, None),
        ({"ids": "a/b"}, "ids[0]"),
        ({"cameras": [""]}, "cameras[0]"),
    ],
)
def test_invalid_filter_is_refused_in_every_use(
    client: TestClient, filled: str, params: dict[str, Any], field: str | None
) -> None:
    for method, path in (("GET", "items"), ("DELETE", "items"), ("GET", "duplicates")):
        answer = client.request(method, f"/v1/galleries/{filled}/{path}", params=params)
        body = check_problem(answer, 422, "invalid-request")
        assert field is None or body["errors"][0]["field"] == field
    assert client.get(f"/v1/galleries/{filled}").json()["items"] == 4


def test_search_with_images_of_both_modalities_refuses_the_opposite_one(client: TestClient, filled: str) -> None:
    images, modality = [crop(1), crop(2)], ["visible", "infrared"]
    answer = search(client, filled, images, modality, filter={"modality": "opposite"})
    assert check_problem(answer, 422, "invalid-request")["errors"][0]["field"] == "query.filter.modality"


def test_empty_values_are_no_filter_and_erase_nothing(client: TestClient, filled: str) -> None:
    path = f"/v1/galleries/{filled}/items"
    for params in ({}, {"attributes": "{}"}):
        check_problem(client.delete(path, params=params), 422, "invalid-request")
    assert search(client, filled, [crop(1)], "visible", filter={"cameras": []}).json()["searched"] == 4


def test_a_label_is_found_whichever_unicode_form_it_was_sent_in(client: TestClient, gallery: str) -> None:
    composed, decomposed = "Jos\N{LATIN SMALL LETTER E WITH ACUTE}", "Jose\N{COMBINING ACUTE ACCENT}"
    fields = {"identity": decomposed, "camera": composed, "attributes": {decomposed: composed}}
    add(client, gallery, [crop(1)], [{"id": "a", "modality": "visible", **fields}])
    for spelling in (composed, decomposed):
        for where in (
            {"identities": spelling},
            {"cameras": spelling},
            {"attributes": json.dumps({spelling: spelling})},
        ):
            found = client.get(f"/v1/galleries/{gallery}/items", params=where).json()["items"]
            assert [item["identity"] for item in found] == [composed]
