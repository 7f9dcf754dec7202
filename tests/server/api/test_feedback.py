"""Search with items marked right or wrong."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from httpx2 import Response

from models.card import Modality
from server.gallery.feedback import reweight
from tests.server.calls import add_people, check_problem
from tests.server.image_files import crop


@pytest.fixture
def people(client: TestClient, gallery: str) -> str:
    add_people(client, gallery, [1, 2, 3, 4], Modality.INFRARED)
    return gallery


def search(client: TestClient, gallery: str, **query: Any) -> Response:
    data = {"query": json.dumps(query), "modality": "visible"}
    files = [("images", ("a.png", crop(1, Modality.VISIBLE, seed=5)))]
    return client.post(f"/v1/galleries/{gallery}/search", files=files, data=data)


def vector(client: TestClient, person: int, modality: Modality, seed: int) -> np.ndarray[Any, Any]:
    files = [("images", ("a.png", crop(person, modality, seed=seed)))]
    answer = client.post("/v1/embeddings", files=files, data={"modality": modality.value}).json()
    return np.array([answer["embeddings"][0]["vector"]], np.float32)


def test_scores_are_those_of_the_reweighted_query(client: TestClient, people: str) -> None:
    answer = search(client, people, feedback={"right": ["p2"], "wrong": ["p1"]}).json()
    stored = {f"p{n}": vector(client, n, Modality.INFRARED, 1) for n in range(1, 5)}
    query = reweight(vector(client, 1, Modality.VISIBLE, 5), stored["p2"], stored["p1"])
    expected = {name: float((query @ one.T).item()) for name, one in stored.items()}
    assert {hit["item"]["id"]: hit["score"] for hit in answer["hits"]} == pytest.approx(expected, abs=1e-4)
    assert [hit["item"]["id"] for hit in answer["hits"]] == sorted(expected, key=expected.__getitem__, reverse=True)


def test_reweighted_queries_have_no_rates(client: TestClient, people: str) -> None:
    plain = search(client, people).json()
    moved = search(client, people, feedback={"right": ["p1"]}).json()
    assert plain["calibration"] is not None
    assert plain["hits"][0]["false_match_rate"] is not None
    assert moved["calibration"] is None
    assert {hit["false_match_rate"] for hit in moved["hits"]} == {None}
    limits = {"max_expected_false_hits": 1, "filter": {"modality": "opposite"}}
    problem = check_problem(search(client, people, feedback={"right": ["p1"]}, **limits), 422, "invalid-request")
    assert "feedback" in problem["errors"][0]["detail"]


def test_pages_of_a_reweighted_search_follow_each_other(client: TestClient, people: str) -> None:
    query = {"k": 2, "paginate": True, "feedback": {"right": ["p3"]}}
    first = search(client, people, **query).json()
    second = search(client, people, **query, cursor=first["next_cursor"]).json()
    whole = search(client, people, feedback={"right": ["p3"]}).json()
    assert [hit["item"]["id"] for hit in first["hits"] + second["hits"]] == [hit["item"]["id"] for hit in whole["hits"]]
    other = search(client, people, **{**query, "feedback": {"right": ["p4"]}}, cursor=first["next_cursor"])
    check_problem(other, 422, "invalid-request")


@pytest.mark.parametrize(
    ("feedback", "status", "kind"),
    [
        ({"right": ["p1"], "wrong": ["p1"]}, 422, "invalid-request"),
        ({"right": ["absent"]}, 404, "item-not-found"),
        ({"right": [f"p{n}" for n in range(101)]}, 422, "invalid-request"),
        ({"maybe": ["p1"]}, 422, "invalid-request"),
    ],
)
def test_invalid_marks_are_refused(
    client: TestClient, people: str, feedback: dict[str, list[str]], status: int, kind: str
) -> None:
    check_problem(search(client, people, feedback=feedback), status, kind)
