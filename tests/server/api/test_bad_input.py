"""Invalid requests: each has a clear problem, and valid items of the same request are stored."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from models.card import Modality
from tests.server.calls import add, add_people, check_problem, search
from tests.server.conftest import MAX_IMAGE_BYTES, MAX_IMAGES, Start
from tests.server.image_files import TEXT, crop, giant_png, truncated
from tests.server.stub_model import write_model

BAD_IMAGES = [
    pytest.param(truncated(), 422, "image-rejected", id="truncated-jpeg"),
    pytest.param(TEXT, 415, "image-type-unsupported", id="text-named-jpg"),
    pytest.param(giant_png(30_000, 30_000), 413, "image-too-large", id="giant-png"),
    pytest.param(b"", 422, "image-rejected", id="empty"),
    pytest.param(b"\xff" * (MAX_IMAGE_BYTES + 1), 413, "image-too-large", id="too-many-bytes"),
]


def stored(client: TestClient, gallery: str) -> list[str]:
    return [item["id"] for item in client.get(f"/v1/galleries/{gallery}/items").json()["items"]]


@pytest.mark.parametrize(("bad", "status", "kind"), BAD_IMAGES)
def test_invalid_image_fails_and_the_others_are_stored(
    client: TestClient, gallery: str, bad: bytes, status: int, kind: str
) -> None:
    items = [{"id": name, "modality": "infrared"} for name in ("a", "b", "c")]
    answer = add(client, gallery, [crop(1), bad, crop(2)], items)
    assert answer.status_code == 207
    body = answer.json()
    assert (body["added"], body["updated"], body["failed"]) == (2, 0, 1)
    assert [(item["index"], item["status"]) for item in body["items"]] == [(0, "added"), (1, "failed"), (2, "added")]
    error = body["items"][1]["error"]
    assert (error["status"], error["type"]) == (status, f"/problems/{kind}")
    assert stored(client, gallery) == ["a", "c"]


@pytest.mark.parametrize(("bad", "status", "kind"), BAD_IMAGES)
def test_request_with_only_an_invalid_image_is_a_problem_that_names_it(
    client: TestClient, gallery: str, bad: bytes, status: int, kind: str
) -> None:
    for answer in (
        add(client, gallery, [bad], [{"modality": "visible"}]),
        search(client, gallery, [bad]),
        client.post("/v1/embeddings", files=[("images", bad)]),
        client.post("/v1/compare", files=[("images", bad), ("images", bad)]),
    ):
        problem = check_problem(answer, status, kind)
        assert problem["errors"][0]["field"] == "images[0]"
        assert problem["errors"][0]["detail"]
    assert stored(client, gallery) == []


def test_search_names_the_invalid_image_among_valid_ones(client: TestClient, gallery: str) -> None:
    problem = check_problem(search(client, gallery, [crop(1), truncated(), crop(1)]), 422, "image-rejected")
    assert [error["field"] for error in problem["errors"]] == ["images[1]"]


def test_images_with_different_errors_are_all_named(client: TestClient, gallery: str) -> None:
    answer = add(client, gallery, [TEXT, truncated()], [{"modality": "visible"}] * 2)
    problem = check_problem(answer, 422, "uploads-failed")
    assert [error["field"] for error in problem["errors"]] == ["images[0]", "images[1]"]


def test_item_with_an_invalid_modality_fails_and_the_others_are_stored(client: TestClient, gallery: str) -> None:
    answer = add(
        client, gallery, [crop(1), crop(2)], [{"id": "a", "modality": "x-ray"}, {"id": "b", "modality": "visible"}]
    )
    assert answer.status_code == 207
    error = answer.json()["items"][0]["error"]
    assert error["errors"] == [{"field": "items[0].modality", "detail": "must be 'visible', 'infrared' or 'auto'"}]
    assert stored(client, gallery) == ["b"]


def test_invalid_modality_of_a_query_is_a_problem(client: TestClient, gallery: str) -> None:
    problem = check_problem(search(client, gallery, [crop(1)], modality="x-ray"), 422, "invalid-request")
    assert problem["errors"] == [{"field": "modality[0]", "detail": "must be 'visible', 'infrared' or 'auto'"}]


@pytest.mark.parametrize(
    ("entry", "field"),
    [
        ({"modality": "visible", "id": "no/slashes"}, "items[0].id"),
        ({"modality": "visible", "id": ""}, "items[0].id"),
        ({"modality": "visible", "captured_at": "2026-11-21T08:30:00"}, "items[0].captured_at"),
        ({"modality": "visible", "captured_at": 1763713800}, "items[0].captured_at"),
        ({"modality": "visible", "captured_at": "9999-12-31T23:59:59-01:00"}, "items[0].captured_at"),
        ({"modality": "visible", "identity": "\ud800"}, "items"),
        ({"modality": "visible", "colour": "red"}, "items[0].colour"),
        ({"modality": "visible", "attributes": {"nested": {}}}, "items[0].attributes.nested"),
        ({"modality": "visible", "attributes": {str(i): i for i in range(33)}}, "items[0].attributes"),
        ({}, "items[0].modality"),
        ("text", "items[0]"),
    ],
)
def test_each_invalid_field_of_an_item_is_named(client: TestClient, gallery: str, entry: object, field: str) -> None:
    problem = check_problem(add(client, gallery, [crop(1)], [entry]), 422, "invalid-request")
    assert problem["errors"][0]["field"].startswith(field)


def test_repeated_id_in_a_request_is_stored_once(client: TestClient, gallery: str) -> None:
    answer = add(client, gallery, [crop(1), crop(2)], [{"id": "a", "modality": "visible"}] * 2).json()
    assert [item["status"] for item in answer["items"]] == ["added", "failed"]


def test_numbers_of_images_and_items_must_be_equal(client: TestClient, gallery: str) -> None:
    problem = check_problem(add(client, gallery, [crop(1), crop(2)], [{"modality": "visible"}]), 422, "invalid-request")
    assert problem["errors"][0]["field"] == "items"


def test_more_images_than_the_limit_are_answered_413(client: TestClient, gallery: str) -> None:
    count = MAX_IMAGES + 1
    check_problem(add(client, gallery, [crop(1)] * count, [{"modality": "visible"}] * count), 413, "too-many-images")
    check_problem(client.post("/v1/embeddings", files=[("images", crop(1))] * count), 413, "too-many-images")


def test_modality_is_given_once_or_for_each_image(client: TestClient, gallery: str) -> None:
    problem = check_problem(search(client, gallery, [crop(1)] * 3, ["visible", "visible"]), 422, "invalid-request")
    assert problem["errors"][0]["field"] == "modality"
    assert search(client, gallery, [crop(1)] * 2, ["visible", "infrared"]).json()["modality"] == ["visible", "infrared"]


@pytest.mark.parametrize("path", ["", "/items", "/items/x", "/items/x/image"])
def test_unknown_gallery_is_404(client: TestClient, path: str) -> None:
    check_problem(client.get(f"/v1/galleries/nowhere{path}"), 404, "gallery-not-found")


def test_writing_to_or_searching_an_unknown_gallery_is_404(client: TestClient) -> None:
    check_problem(add(client, "nowhere", [crop(1)], [{"modality": "visible"}]), 404, "gallery-not-found")
    check_problem(search(client, "nowhere", [crop(1)]), 404, "gallery-not-found")
    check_problem(client.delete("/v1/galleries/nowhere"), 404, "gallery-not-found")


def test_unknown_item_or_model_is_404(client: TestClient, gallery: str) -> None:
    for method in ("GET", "DELETE"):
        check_problem(client.request(method, f"/v1/galleries/{gallery}/items/x"), 404, "item-not-found")
    check_problem(client.patch(f"/v1/galleries/{gallery}/items/x", json={"camera": "c1"}), 404, "item-not-found")
    check_problem(client.get("/v1/models/x"), 404, "model-not-found")
    check_problem(client.post("/v1/galleries", json={"name": "h", "model": "x"}), 404, "model-not-found")


def test_gallery_of_another_model_rejects_crops_but_lists_its_items(start: Start, tmp_path: Any) -> None:
    with start() as client:
        client.post("/v1/galleries", json={"name": "g"})
        add_people(client, "g", [1, 2], Modality.INFRARED)
    write_model(tmp_path / "zoo" / "stub", seed=1)
    with start(model_dir=tmp_path / "zoo") as client:
        check_problem(search(client, "g", [crop(1)]), 409, "model-mismatch")
        check_problem(add(client, "g", [crop(1)], [{"modality": "visible"}]), 409, "model-mismatch")
        assert stored(client, "g") == ["p1", "p2"]
        found = client.post("/v1/galleries/g/search", json={"item_id": "p1"})
        assert [hit["item"]["id"] for hit in found.json()["hits"]] == ["p2"]


def test_existing_gallery_name_is_409(client: TestClient, gallery: str) -> None:
    check_problem(client.post("/v1/galleries", json={"name": gallery}), 409, "gallery-exists")


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"k": 0}, "query.k"),
        ({"k": 1001}, "query.k"),
        ({"k": "ten"}, "query.k"),
        ({"rerank": "yes"}, "query.rerank"),
        ({"fusion": "median"}, "query.fusion"),
        ({"group_by": "camera"}, "query.group_by"),
        ({"min_score": 2}, "query.min_score"),
        ({"max_false_match_rate": 0}, "query.max_false_match_rate"),
        ({"filter": {"modality": "other"}}, "query.filter.modality"),
        ({"filter": {"camera": ["c1"]}}, "query.filter.camera"),
        ({"filter": {"captured_from": "yesterday"}}, "query.filter.captured_from"),
    ],
)
def test_each_invalid_field_of_a_query_is_named(client: TestClient, gallery: str, query: Any, field: str) -> None:
    for answer in (
        search(client, gallery, [crop(1)], **query),
        client.post(f"/v1/galleries/{gallery}/search", json={"item_id": "x", "query": query}),
    ):
        assert check_problem(answer, 422, "invalid-request")["errors"][0]["field"] == field


def test_query_that_is_not_json_or_repeated_is_named(client: TestClient, gallery: str) -> None:
    for data in ({"query": "{"}, {"query": ["{}", "{}"]}):
        answer = client.post(f"/v1/galleries/{gallery}/search", files=[("images", crop(1))], data=data)
        assert check_problem(answer, 422, "invalid-request")["errors"][0]["field"] == "query"


def test_text_instead_of_a_file_is_named(client: TestClient, gallery: str) -> None:
    answer = client.post("/v1/embeddings", data={"images": "text"}, files=[("other", b"")])
    problem = check_problem(answer, 422, "invalid-request")
    assert {error["field"]: error["detail"] for error in problem["errors"]} == {
        "images[0]": "must be a file",
        "other": "is not a known field",
    }


def test_erasure_requires_a_filter_and_rejects_unknown_fields(client: TestClient, gallery: str) -> None:
    add_people(client, gallery, [1, 2], Modality.INFRARED)
    for address in ("", "?identty=p1", "?identity=", "?modality=x-ray"):
        check_problem(client.delete(f"/v1/galleries/{gallery}/items{address}"), 422, "invalid-request")
    assert stored(client, gallery) == ["p1", "p2"]


@pytest.mark.parametrize("cursor", ["%00", "nonsense", "=", "ö"])
def test_forged_cursor_is_422_or_harmless(client: TestClient, gallery: str, cursor: str) -> None:
    answer = client.get(f"/v1/galleries/{gallery}/items", params={"cursor": cursor})
    assert answer.status_code in (200, 422)
    if answer.status_code == 422:
        assert check_problem(answer, 422, "invalid-request")["errors"][0]["field"] == "cursor"


@pytest.mark.parametrize("name", [".", ".."])
def test_ids_that_clients_remove_from_paths_are_rejected(client: TestClient, gallery: str, name: str) -> None:
    answer = add(client, gallery, [crop(1)], [{"id": name, "modality": "visible"}])
    assert check_problem(answer, 422, "invalid-request")["errors"][0]["field"] == "items[0].id"
