"""A server that was told to approximate says so, to whom it may."""

from __future__ import annotations

from typing import Any

from fastapi.testclient import TestClient

from server.gallery.types import NewItem
from tests.server.conftest import Start
from tests.server.gallery.making import FINGERPRINT, crops
from tests.server.standin import DIMENSION


def fill(client: TestClient, name: str, items: list[NewItem]) -> None:
    assert client.post("/v1/galleries", json={"name": name}).status_code == 201
    galleries = client.app.state.service.galleries  # type: ignore[attr-defined]
    galleries.put(name, items, fingerprint=galleries.get(name).fingerprint)
    galleries.make_lists()


def ask(client: TestClient, name: str, item: NewItem, **query: object) -> dict[str, Any]:
    body = {"vector": item.vector.tolist(), "modality": item.item.modality, "query": query}
    answer = client.post(f"/v1/galleries/{name}/search", json=body)
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


def test_answers_and_readiness_tell_the_recall(start: Start) -> None:
    items = crops(DIMENSION)
    with start(approximate_above=len(items) - 1) as client:
        fill(client, "large", items)
        fill(client, "small", items[1:])
        ready = client.get("/readyz").json()
        recall = ready["galleries"]["large"]["recall"]
        assert 0.99 <= recall <= 1
        assert [ready["galleries"][name]["index"] for name in ("large", "small")] == ["ivf", "exact"]
        assert ready["recall"] == recall
        large, small = ask(client, "large", items[0]), ask(client, "small", items[0])
        assert (large["exact"], large["recall"]) == (False, recall)
        assert (small["exact"], small["recall"]) == (True, None)
        assert large["hits"][0]["item"]["id"] == items[0].item.id
        asked = ask(client, "large", items[0], exact=True)
        assert (asked["exact"], asked["recall"]) == (True, None)
        assert asked["hits"][1:] == [hit | {"rank": hit["rank"] + 1} for hit in small["hits"][:9]]
        audited = client.get("/v1/audit").json()["entries"]
        assert [entry["detail"].get("exact") for entry in audited[:3]] == [True, None, None]


def test_names_stay_hidden_where_they_need_a_key(start: Start) -> None:
    items = crops(DIMENSION)
    with start(approximate_above=1000, auth="required") as client:
        galleries = client.app.state.service.galleries  # type: ignore[attr-defined]
        galleries.create("g", model="m", fingerprint=FINGERPRINT, dimension=DIMENSION)
        galleries.put("g", items, fingerprint=FINGERPRINT)
        galleries.make_lists()
        ready = client.get("/readyz").json()
        assert ready["galleries"] is None
        assert ready["recall"] >= 0.99
