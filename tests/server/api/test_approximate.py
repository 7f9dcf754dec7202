"""Approximate search: reported recall, and access to gallery names."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from server.domain.types import NewItem
from tests.server.conftest import Start
from tests.server.gallery.builders import FINGERPRINT, crops
from tests.server.stub_model import DIMENSION


def fill(client: TestClient, name: str, items: list[NewItem]) -> None:
    assert client.post("/v1/galleries", json={"name": name}).status_code == 201
    galleries = client.app.state.service.galleries  # type: ignore[attr-defined]
    galleries.writer.put(name, items, fingerprint=galleries.catalog.get(name).fingerprint)
    galleries.maintenance.build_lists()


def ask(client: TestClient, name: str, item: NewItem, **query: object) -> dict[str, Any]:
    body = {"vector": item.vector.tolist(), "modality": item.item.modality, "query": query}
    answer = client.post(f"/v1/galleries/{name}/search", json=body)
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


def test_search_and_readiness_report_the_recall(start: Start) -> None:
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
        exact_answer = ask(client, "large", items[0], exact=True)
        assert (exact_answer["exact"], exact_answer["recall"]) == (True, None)
        growth = exact_answer["searched"] / small["searched"]  # expected false hits grow with the items searched
        assert exact_answer["hits"][1:] == [
            hit | {"rank": hit["rank"] + 1, "expected_false_hits": pytest.approx(hit["expected_false_hits"] * growth)}
            for hit in small["hits"][:9]
        ]
        audited = client.get("/v1/audit").json()["entries"]
        assert [entry["detail"].get("exact") for entry in audited[:3]] == [True, None, None]


def test_gallery_names_are_hidden_where_keys_are_required(start: Start) -> None:
    items = crops(DIMENSION)
    with start(approximate_above=1000, auth="required") as client:
        galleries = client.app.state.service.galleries  # type: ignore[attr-defined]
        galleries.catalog.create("g", model="m", fingerprint=FINGERPRINT, dimension=DIMENSION)
        galleries.writer.put("g", items, fingerprint=FINGERPRINT)
        galleries.maintenance.build_lists()
        ready = client.get("/readyz").json()
        assert ready["galleries"] is None
        assert ready["recall"] >= 0.99
