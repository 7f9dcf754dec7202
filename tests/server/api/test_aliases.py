"""Aliases over HTTP: resolution in paths, atomic moves, access control."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from tests.server.conftest import Start


@pytest.fixture
def server(start: Start) -> Iterator[TestClient]:
    with start() as client:
        for name in ("march", "april"):
            assert client.post("/v1/galleries", json={"name": name}).status_code == 201
        yield client


def vector(dimension: int, place: int = 0) -> list[float]:
    return [float(place == axis) for axis in range(dimension)]


def put(server: TestClient, gallery: str, id: str) -> None:
    dimension = server.get(f"/v1/galleries/{gallery}").json()["dimension"]
    item = {"id": id, "modality": "visible", "vector": vector(dimension)}
    assert server.post(f"/v1/galleries/{gallery}/vectors", json={"items": [item]}).status_code == 201


def test_alias_resolves_to_its_gallery_and_can_be_moved(server: TestClient) -> None:
    put(server, "march", "a")
    put(server, "april", "b")
    for gallery, item in (("march", "a"), ("april", "b")):
        answer = server.put("/v1/aliases/latest", json={"gallery": gallery})
        assert answer.json() == {"alias": "latest", "gallery": gallery}
        assert server.get("/v1/galleries/latest").json()["name"] == gallery
        assert [entry["id"] for entry in server.get("/v1/galleries/latest/items").json()["items"]] == [item]
        found = server.post("/v1/galleries/latest/search", json={"item_id": item}).json()
        assert found["gallery"] == gallery
    assert server.get("/v1/aliases").json() == {"aliases": [{"alias": "latest", "gallery": "april"}]}


def test_writes_through_an_alias_are_stored_in_its_gallery(server: TestClient) -> None:
    put(server, "march", "a")
    server.put("/v1/aliases/latest", json={"gallery": "march"})
    put(server, "latest", "c")
    assert server.get("/v1/galleries/march").json()["items"] == 2


def test_removing_an_alias_keeps_the_gallery(server: TestClient) -> None:
    server.put("/v1/aliases/latest", json={"gallery": "march"})
    assert server.delete("/v1/aliases/latest").status_code == 204
    assert server.get("/v1/galleries/latest").status_code == 404
    assert server.get("/v1/galleries/march").status_code == 200
    assert server.delete("/v1/aliases/latest").status_code == 404


def test_gallery_cannot_be_deleted_by_an_alias(server: TestClient) -> None:
    server.put("/v1/aliases/latest", json={"gallery": "march"})
    assert server.delete("/v1/galleries/latest").status_code == 404
    assert server.get("/v1/galleries/march").status_code == 200


def test_deleting_a_gallery_removes_its_aliases(server: TestClient) -> None:
    server.put("/v1/aliases/latest", json={"gallery": "march"})
    assert server.delete("/v1/galleries/march").status_code == 204
    assert server.get("/v1/aliases").json() == {"aliases": []}


def test_name_is_either_a_gallery_or_an_alias(server: TestClient) -> None:
    assert server.put("/v1/aliases/march", json={"gallery": "april"}).status_code == 409
    server.put("/v1/aliases/latest", json={"gallery": "march"})
    assert server.post("/v1/galleries", json={"name": "latest"}).status_code == 409
    assert server.put("/v1/aliases/newest", json={"gallery": "may"}).status_code == 404


def test_aliases_survive_a_restart(start: Start) -> None:
    with start() as client:
        client.post("/v1/galleries", json={"name": "march"})
        client.put("/v1/aliases/latest", json={"gallery": "march"})
    with start() as client:
        assert client.get("/v1/galleries/latest").json()["name"] == "march"


def test_keys_cover_galleries_and_not_aliases(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    with start(auth="required") as client:
        admin = {"X-API-Key": next(word for word in capsys.readouterr().out.split() if len(word) > 30)}
        for name in ("march", "april"):
            client.post("/v1/galleries", json={"name": name}, headers=admin)
        client.put("/v1/aliases/latest", json={"gallery": "march"}, headers=admin)
        body = {"name": "desk", "scopes": ["search", "write"], "galleries": ["march"]}
        desk = {"X-API-Key": client.post("/v1/keys", json=body, headers=admin).json()["secret"]}
        assert client.get("/v1/galleries/latest", headers=desk).status_code == 200
        assert client.put("/v1/aliases/latest", json={"gallery": "march"}, headers=desk).status_code == 403
        client.put("/v1/aliases/latest", json={"gallery": "april"}, headers=admin)
        assert client.get("/v1/galleries/latest", headers=desk).status_code == 403
        assert client.get("/v1/aliases", headers=desk).json() == {"aliases": []}
