"""Duplicates over HTTP, and the warnings and checksums of items."""

from __future__ import annotations

import hashlib
import itertools
from typing import Any

import numpy as np
from fastapi.testclient import TestClient

from models.card import Modality
from tests.drawing import draw_person
from tests.server.calls import add, add_people, check_problem, search
from tests.server.image_files import crop, encode
from tests.server.stub_model import DIMENSION, HEIGHT, WIDTH


def duplicates(client: TestClient, gallery: str, **params: Any) -> list[dict[str, Any]]:
    """Return the pairs of all pages."""
    found: list[dict[str, Any]] = []
    for _ in range(100):
        answer = client.get(f"/v1/galleries/{gallery}/duplicates", params=params)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        found += page["pairs"]
        if page["next_cursor"] is None:
            assert page["walked"] == page["items"]
            return found
        params["cursor"] = page["next_cursor"]
    raise AssertionError("the pages do not end")


def named(pairs: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(pair["a"]["id"], pair["b"]["id"]) for pair in pairs]


def test_file_added_twice_is_reported_as_identical(client: TestClient, gallery: str) -> None:
    again = encode(draw_person(1, Modality.VISIBLE, size=(HEIGHT, WIDTH)), "BMP")
    entries = [{"id": name, "modality": "visible"} for name in ("a", "b", "c", "other")]
    add(client, gallery, [crop(1), again, crop(1), crop(2)], entries)
    pairs = duplicates(client, gallery, min_score=0.9999)
    assert named(pairs) == [("a", "b"), ("a", "c"), ("b", "c")]
    assert [pair["identical"] for pair in pairs] == [False, True, False]  # b has the same pixels, in another file
    assert all(0.9999 <= pair["score"] <= 1.0001 for pair in pairs)
    assert pairs[0]["a"].keys() == {
        "id", "identity", "modality", "camera", "captured_at", "attributes", "warnings"
    }  # fmt: skip


def test_pages_of_any_size_list_every_pair_once(client: TestClient, gallery: str) -> None:
    names = [f"i{n}" for n in range(7)]
    add(client, gallery, [crop(1)] * 7, [{"id": name, "modality": "visible"} for name in names])
    for limit in (1, 2, 5, 100):
        assert named(duplicates(client, gallery, limit=limit)) == list(itertools.combinations(names, 2))


def test_modality_filter_excludes_pairs_of_the_other_modality(client: TestClient, gallery: str) -> None:
    add(client, gallery, [crop(1)] * 4, [{"id": f"v{n}", "modality": "visible"} for n in range(2)]
        + [{"id": f"i{n}", "modality": "infrared"} for n in range(2)])  # fmt: skip
    assert named(duplicates(client, gallery, modality="infrared")) == [("i0", "i1")]
    assert len(duplicates(client, gallery, min_score=-1)) == 6


def test_invalid_parameters_are_rejected(client: TestClient, gallery: str) -> None:
    path = f"/v1/galleries/{gallery}/duplicates"
    check_problem(client.get("/v1/galleries/nowhere/duplicates"), 404, "gallery-not-found")
    for params in ({"min_score": 1.5}, {"modality": "opposite"}, {"limit": 0}, {"cursor": "??"}, {"cursor": "YWJj"}):
        check_problem(client.get(path, params=params), 422, "invalid-request")


def test_crop_of_poor_quality_is_stored_with_its_warnings(client: TestClient, gallery: str) -> None:
    dark = encode((draw_person(1, Modality.VISIBLE) * 0.1).astype(np.uint8))
    wide = encode(np.rot90(draw_person(2, Modality.VISIBLE)).copy())
    entries = [{"id": name, "modality": "visible"} for name in ("dark", "wide", "good")]
    results = add(client, gallery, [dark, wide, crop(3)], entries).json()["items"]
    assert [result["warnings"] for result in results] == [["too_dark"], ["not_person_shaped"], []]
    assert client.get(f"/v1/galleries/{gallery}/items/dark").json()["warnings"] == ["too_dark"]
    answer = search(client, gallery, [wide, crop(3)], "visible").json()
    assert answer["warnings"] == [["not_person_shaped"], []]
    assert {hit["item"]["id"]: hit["item"]["warnings"] for hit in answer["hits"]} == {
        "dark": ["too_dark"],
        "wide": ["not_person_shaped"],
        "good": [],
    }
    add(client, gallery, [crop(1)], [{"id": "dark", "modality": "visible"}])
    assert client.get(f"/v1/galleries/{gallery}/items/dark").json()["warnings"] == []


def test_item_has_the_checksum_of_its_content(client: TestClient, gallery: str) -> None:
    add_people(client, gallery, [1], Modality.INFRARED)
    file = hashlib.sha256(crop(1, Modality.INFRARED, seed=1)).hexdigest()
    assert client.get(f"/v1/galleries/{gallery}/items/p1").json()["content_sha256"] == file
    changed = client.patch(f"/v1/galleries/{gallery}/items/p1", json={"camera": "c9"}).json()
    assert (changed["camera"], changed["content_sha256"]) == ("c9", file)
    vector = np.zeros(DIMENSION, "<f4")
    vector[3] = 1
    entry = {"id": "v", "modality": "visible", "vector": vector.tolist()}
    assert client.post(f"/v1/galleries/{gallery}/vectors", json={"items": [entry]}).status_code == 201
    listed = {item["id"]: item for item in client.get(f"/v1/galleries/{gallery}/items").json()["items"]}
    assert listed["v"]["content_sha256"] == hashlib.sha256(vector.tobytes()).hexdigest()
    assert listed["p1"]["content_sha256"] == file
