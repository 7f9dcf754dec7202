"""Galleries and their items, by image and by vector."""

from __future__ import annotations

import io
import json
from hashlib import sha256
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from models.card import Modality
from tests.server.calls import add, add_people, check_problem, search
from tests.server.conftest import Start
from tests.server.image_files import crop, encode
from tests.server.stub_model import DIMENSION


def unit(seed: int, dimension: int = DIMENSION) -> list[float]:
    drawn = np.random.default_rng(seed).normal(size=dimension)
    found: list[float] = (drawn / np.linalg.norm(drawn)).tolist()
    return found


def ids(client: TestClient, gallery: str, **params: Any) -> list[str]:
    answer = client.get(f"/v1/galleries/{gallery}/items", params=params)
    assert answer.status_code == 200, answer.text
    return [item["id"] for item in answer.json()["items"]]


def test_gallery_is_created_read_changed_and_deleted(client: TestClient) -> None:
    body = {"name": "north:gate", "retention_days": 30, "description": "the north gate"}
    created = client.post("/v1/galleries", json=body)
    assert created.status_code == 201
    details = created.json()
    assert client.get(created.headers["location"]).json() == details
    assert (details["model"], details["dimension"], details["items"]) == ("stub", DIMENSION, 0)
    assert (details["retention_days"], details["description"]) == (30, "the north gate")
    changed = client.patch("/v1/galleries/north:gate", json={"retention_days": None}).json()
    assert (changed["retention_days"], changed["description"]) == (None, "the north gate")
    assert client.delete("/v1/galleries/north:gate").status_code == 204
    check_problem(client.get("/v1/galleries/north:gate"), 404, "gallery-not-found")


def test_pages_of_a_list_hold_every_item_once(client: TestClient, gallery: str) -> None:
    expected = [f"i{n:02d}" for n in range(23)]
    add(client, gallery, [crop(1)] * 23, [{"id": name, "modality": "visible"} for name in reversed(expected)])
    found: list[str] = []
    params: dict[str, Any] = {"limit": 5}
    while True:
        page = client.get(f"/v1/galleries/{gallery}/items", params=params).json()
        found += [item["id"] for item in page["items"]]
        assert len(page["items"]) <= 5
        if page["next_cursor"] is None:
            break
        params["cursor"] = page["next_cursor"]
    assert found == expected


def test_galleries_are_listed_by_name_in_pages(start: Start) -> None:
    with start() as client:
        for name in ("c", "a", "b"):
            client.post("/v1/galleries", json={"name": name})
        first = client.get("/v1/galleries", params={"limit": 2}).json()
        second = client.get("/v1/galleries", params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert [gallery["name"] for gallery in first["galleries"]] == ["a", "b"]
    assert [gallery["name"] for gallery in second["galleries"]] == ["c"]
    assert second["next_cursor"] is None


def test_item_with_the_same_id_is_replaced(client: TestClient, gallery: str) -> None:
    entry = {"id": "a", "modality": "infrared", "camera": "c1"}
    assert add(client, gallery, [crop(1)], [entry]).json()["items"][0]["status"] == "added"
    second = add(client, gallery, [crop(2)], [{**entry, "camera": "c2"}])
    assert second.status_code == 201
    assert second.json()["items"][0]["status"] == "updated"
    assert client.get(f"/v1/galleries/{gallery}").json()["items"] == 1
    assert client.get(f"/v1/galleries/{gallery}/items/a").json()["camera"] == "c2"


def test_id_is_generated_and_detected_modality_is_reported(client: TestClient, gallery: str) -> None:
    images = [crop(1, Modality.VISIBLE), crop(1, Modality.INFRARED)]
    results = add(client, gallery, images, [{"modality": "auto"}] * 2).json()["items"]
    assert [result["modality"] for result in results] == ["visible", "infrared"]
    assert sorted(result["id"] for result in results) == ids(client, gallery)


def test_item_keeps_its_metadata_and_times_are_in_utc(client: TestClient, gallery: str) -> None:
    attributes = {"site": "north", "floor": 2, "wet": True, "height": 1.75}
    entry = {"id": "a", "identity": "Ann", "modality": "visible", "camera": "c1", "attributes": attributes}
    add(client, gallery, [crop(1)], [{**entry, "captured_at": "2026-11-21T09:30:00.25+01:00"}])
    found = client.get(f"/v1/galleries/{gallery}/items/a").json()
    made = {"warnings": [], "content_sha256": sha256(crop(1)).hexdigest()}
    assert found == {**entry, **made, "captured_at": "2026-11-21T08:30:00.250000Z"}
    assert found["attributes"]["wet"] is True


def test_change_sets_given_fields_and_clears_null_fields(client: TestClient, gallery: str) -> None:
    add_people(client, gallery, [1], Modality.INFRARED, camera="c1")
    changed = client.patch(f"/v1/galleries/{gallery}/items/p1", json={"identity": None, "camera": "c2"}).json()
    assert (changed["identity"], changed["camera"]) == (None, "c2")
    assert search(client, gallery, [crop(1)], filter={"cameras": ["c1"]}).json()["searched"] == 0
    assert search(client, gallery, [crop(1)], filter={"cameras": ["c2"]}).json()["searched"] == 1
    answer = client.patch(f"/v1/galleries/{gallery}/items/p1", json={"modality": "visible"})
    check_problem(answer, 422, "invalid-request")


def test_list_of_items_is_filtered(client: TestClient, gallery: str) -> None:
    entries = [
        {"id": "a", "identity": "x", "modality": "visible", "camera": "c1", "captured_at": "2026-01-01T00:00:00Z"},
        {"id": "b", "identity": "y", "modality": "infrared", "camera": "c2", "captured_at": "2026-01-02T00:00:00Z"},
        {"id": "c", "identity": "x", "modality": "infrared", "camera": "c3"},
    ]
    add(client, gallery, [crop(1)] * 3, entries)
    assert ids(client, gallery) == ["a", "b", "c"]
    assert ids(client, gallery, identity="x") == ["a", "c"]
    assert ids(client, gallery, identity=["x", "y"], modality="infrared") == ["b", "c"]
    assert ids(client, gallery, camera=["c1", "c2"]) == ["a", "b"]
    assert ids(client, gallery, captured_from="2026-01-02T00:00:00Z") == ["b"]
    assert ids(client, gallery, captured_to="2026-01-02T00:00:00Z") == ["a"]


def test_search_does_not_find_an_erased_person(client: TestClient, gallery: str) -> None:
    add_people(client, gallery, [1, 2, 3], Modality.INFRARED)
    erased = client.delete(f"/v1/galleries/{gallery}/items", params={"identity": "p2"}).json()
    assert (erased["deleted"], erased["receipt"]["gallery"]) == (1, gallery)
    check_problem(client.get(f"/v1/galleries/{gallery}/items/p2/image"), 404, "item-not-found")
    assert client.delete(f"/v1/galleries/{gallery}/items/p1").status_code == 204
    hits = search(client, gallery, [crop(2)], k=10).json()["hits"]
    assert [hit["item"]["id"] for hit in hits] == ["p3"]


def test_image_of_an_item_is_a_small_jpeg(client: TestClient, gallery: str) -> None:
    large = Image.new("RGB", (400, 800), (180, 40, 40))
    add(client, gallery, [encode(large)], [{"id": "a", "modality": "visible"}])
    answer = client.get(f"/v1/galleries/{gallery}/items/a/image")
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["cache-control"] == "no-store"
    thumbnail = Image.open(io.BytesIO(answer.content))
    assert (thumbnail.format, thumbnail.size) == ("JPEG", (128, 256))


def test_vectors_are_added_like_images_and_an_invalid_one_fails_only_itself(client: TestClient, gallery: str) -> None:
    entries = [
        {"id": "a", "modality": "infrared", "camera": "c1", "vector": unit(1)},
        {"id": "b", "modality": "infrared", "vector": [2 * x for x in unit(2)]},
        {"id": "c", "modality": "auto", "vector": unit(3)},
        {"id": "d", "modality": "infrared", "vector": unit(4, DIMENSION - 1)},
        {"id": "e", "modality": "visible", "vector": unit(5)},
    ]
    lines = "\n".join(map(json.dumps, entries)) + "\nnonsense\n"
    as_lines = client.post(
        f"/v1/galleries/{gallery}/vectors", content=lines, headers={"Content-Type": "application/x-ndjson"}
    )
    assert as_lines.status_code == 207
    results = as_lines.json()["items"]
    assert [result["status"] for result in results] == ["added", "failed", "failed", "failed", "added", "failed"]
    assert [result["error"] and result["error"]["status"] for result in results] == [None, 422, 422, 409, None, 422]
    assert results[1]["error"]["errors"][0]["field"] == "items[1].vector"
    as_json = client.post(f"/v1/galleries/{gallery}/vectors", json={"items": entries})
    assert [result["status"] for result in as_json.json()["items"]] == ["updated", *["failed"] * 3, "updated"]
    found = client.post(
        f"/v1/galleries/{gallery}/search", json={"vector": unit(1), "modality": "visible", "query": {"k": 1}}
    ).json()["hits"][0]
    assert found["item"]["id"] == "a"
    assert found["score"] == pytest.approx(1)
    check_problem(client.get(f"/v1/galleries/{gallery}/items/a/image"), 404, "item-not-found")


def test_vectors_of_another_model_are_rejected(client: TestClient, gallery: str) -> None:
    url, body = f"/v1/galleries/{gallery}/vectors", {"items": [{"modality": "visible", "vector": unit(1)}]}
    check_problem(client.post(url, json=body, params={"fingerprint": "0" * 64}), 409, "model-mismatch")
    own = client.get(f"/v1/galleries/{gallery}").json()["fingerprint"]
    assert client.post(url, json=body, params={"fingerprint": own}).status_code == 201
    body = {"items": [{"modality": "visible", "vector": unit(1, 7)}]}
    check_problem(client.post(url, json=body), 409, "model-mismatch")


@pytest.mark.parametrize("body", ["[]", "{}", '{"items": []}', '{"items": [], "x": 1}', "{", ""])
def test_vectors_body_without_vectors_is_422(client: TestClient, gallery: str, body: str) -> None:
    for kind in ("application/json", "application/x-ndjson"):
        answer = client.post(f"/v1/galleries/{gallery}/vectors", content=body, headers={"Content-Type": kind})
        check_problem(answer, 422, "invalid-request")


def test_restart_keeps_the_gallery_and_its_search_results(start: Start) -> None:
    with start() as client:
        client.post("/v1/galleries", json={"name": "g"})
        add_people(client, "g", range(6), Modality.INFRARED)
        client.delete("/v1/galleries/g/items/p3")
        before = search(client, "g", [crop(2)]).json()
        image = client.get("/v1/galleries/g/items/p1/image").content
    with start() as client:
        after = search(client, "g", [crop(2)]).json()
        assert (after["hits"], after["searched"]) == (before["hits"], 5)
        assert client.get("/v1/galleries/g/items/p1/image").content == image
        assert client.get("/readyz").json()["galleries"]["g"]["store_sequence"] == 2


@pytest.mark.parametrize("path", ["items", "vectors"])
def test_request_with_an_idempotency_key_adds_no_item_twice(client: TestClient, gallery: str, path: str) -> None:
    def send(headers: dict[str, str], seed: int) -> list[str]:
        if path == "items":
            images = [crop(seed), crop(seed), crop(seed + 1)]
            answer = add(client, gallery, images, [{"modality": "visible"}] * 3, headers=headers)
        else:
            entries = [{"modality": "visible", "vector": unit(seed + n // 2)} for n in range(3)]
            answer = client.post(f"/v1/galleries/{gallery}/vectors", json={"items": entries}, headers=headers)
        assert answer.status_code == 201, answer.text
        return [item["id"] for item in answer.json()["items"]]

    first = send({"Idempotency-Key": "a"}, 1)
    assert send({"Idempotency-Key": "a"}, 1) == first
    assert len(set(first)) == len(ids(client, gallery)) == 3
    assert not set(first) & set(send({"Idempotency-Key": "b"}, 1))
    assert not set(first) & set(send({"Idempotency-Key": "a"}, 7)), "another content is another item"
    assert not set(send({}, 1)) & set(send({}, 1))
