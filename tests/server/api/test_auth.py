"""Who may do what."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from models.card import Modality
from tests.server.calls import add, add_people, check_problem, search
from tests.server.conftest import Start
from tests.server.pictures import crop


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


@pytest.fixture
def admin(start: Start, capsys: pytest.CaptureFixture[str]) -> Iterator[TestClient]:
    """A server that needs keys, with two galleries; the client carries the admin key."""
    with start(auth="required") as client:
        client.headers |= bearer(first_key(capsys.readouterr().out))
        for name in ("open", "closed"):
            assert client.post("/v1/galleries", json={"name": name}).status_code == 201
        add_people(client, "open", [1, 2], Modality.INFRARED)
        yield client


def first_key(printed: str) -> str:
    found = re.findall(r"vireid_[A-Za-z0-9_-]{43}", printed)
    assert len(found) == 1
    return str(found[0])


def key(admin: TestClient, *scopes: str, galleries: list[str] | None = None) -> dict[str, str]:
    """Headers of a new key."""
    answer = admin.post("/v1/keys", json={"name": "k", "scopes": list(scopes), "galleries": galleries})
    assert answer.status_code == 201, answer.text
    return bearer(answer.json()["secret"])


def test_the_first_start_prints_an_admin_key_once(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    with start(auth="required") as client:
        secret = first_key(capsys.readouterr().out)
        assert client.get("/v1/keys", headers=bearer(secret)).status_code == 200
        assert client.get("/v1/keys", headers={"X-API-Key": secret}).status_code == 200
    with start(auth="required") as client:
        assert "vireid_" not in capsys.readouterr().out
        assert client.get("/v1/keys", headers=bearer(secret)).status_code == 200


def test_nothing_under_v1_is_open_without_a_key(admin: TestClient) -> None:
    paths = admin.get("/openapi.json").json()["paths"]
    tried = 0
    for path, methods in paths.items():
        if not path.startswith("/v1/") and path != "/metrics":
            continue
        for method in methods:
            url = re.sub(r"\{\w+\}", "x", path)
            for headers in ({}, bearer("vireid_" + "x" * 43), {"Authorization": "Basic eDp5"}, {"X-API-Key": ""}):
                answer = admin.request(method, url, headers={"Authorization": "", **headers})
                check_problem(answer, 401, "unauthorized")
                assert answer.headers["www-authenticate"] == "Bearer"
            tried += 1
    assert tried > 20


def test_a_key_is_asked_for_before_the_body_is_read(admin: TestClient) -> None:
    read = []

    def body() -> Iterator[bytes]:
        read.append(True)
        yield b"x"

    answer = admin.post("/v1/embeddings", content=body(), headers={"Authorization": "Bearer wrong"})
    check_problem(answer, 401, "unauthorized")
    assert read == []


def test_alive_ready_and_the_page_are_open_but_name_no_gallery(admin: TestClient) -> None:
    anonymous = {"Authorization": ""}
    for path in ("/", "/healthz", "/readyz", "/openapi.json"):
        assert admin.get(path, headers=anonymous).status_code == 200
    assert admin.get("/readyz", headers=anonymous).json()["galleries"] is None


def test_a_search_key_reads_and_searches_and_changes_nothing(admin: TestClient) -> None:
    headers = key(admin, "search")
    for path in ("/v1/limits", "/v1/models", "/v1/galleries", "/v1/galleries/open/items/p1/image", "/metrics"):
        assert admin.get(path, headers=headers).status_code == 200
    answer = admin.post("/v1/galleries/open/search", files=[("images", crop(1))], headers=headers)
    assert answer.status_code == 200
    changes: list[tuple[str, str, Any]] = [
        ("POST", "/v1/galleries", {"name": "new"}),
        ("PATCH", "/v1/galleries/open", {"description": "x"}),
        ("DELETE", "/v1/galleries/open", None),
        ("PATCH", "/v1/galleries/open/items/p1", {"camera": "x"}),
        ("DELETE", "/v1/galleries/open/items/p1", None),
        ("DELETE", "/v1/galleries/open/items?identity=p1", None),
        ("POST", "/v1/galleries/open/vectors", {"items": []}),
        ("GET", "/v1/keys", None),
        ("POST", "/v1/keys", {"name": "x", "scopes": ["admin"]}),
        ("DELETE", "/v1/keys/x", None),
        ("GET", "/v1/audit", None),
    ]
    for method, path, body in changes:
        check_problem(admin.request(method, path, json=body, headers=headers), 403, "forbidden")
    check_problem(add(admin, "open", [crop(1)], [{"modality": "visible"}], headers=headers), 403, "forbidden")
    assert admin.get("/v1/galleries/open").json()["items"] == 2


def test_a_write_key_writes_and_sees_nothing(admin: TestClient) -> None:
    headers = key(admin, "write")
    assert add(admin, "open", [crop(3)], [{"id": "p3", "modality": "visible"}], headers=headers).status_code == 201
    for path in ("/v1/galleries/open/items", "/v1/galleries/open/items/p1/image", "/v1/keys", "/v1/audit"):
        check_problem(admin.get(path, headers=headers), 403, "forbidden")


def test_a_key_for_one_gallery_knows_no_other(admin: TestClient) -> None:
    headers = key(admin, "search", "write", galleries=["open"])
    assert [g["name"] for g in admin.get("/v1/galleries", headers=headers).json()["galleries"]] == ["open"]
    assert admin.get("/v1/galleries/open", headers=headers).status_code == 200
    answers = {}
    for name in ("closed", "absent"):
        answer = admin.get(f"/v1/galleries/{name}", headers=headers)
        answers[name] = check_problem(answer, 403, "forbidden")["detail"].replace(name, "…")
        assert admin.request("DELETE", f"/v1/galleries/{name}", headers=headers).status_code == 403
    assert answers["closed"] == answers["absent"]
    check_problem(admin.post("/v1/galleries", json={"name": "absent"}, headers=headers), 403, "forbidden")


def test_an_admin_key_for_one_gallery_administers_no_keys(admin: TestClient) -> None:
    headers = key(admin, "admin", galleries=["open"])
    body = {"name": "wider", "scopes": ["admin"]}
    check_problem(admin.post("/v1/keys", json=body, headers=headers), 403, "forbidden")
    assert admin.get("/v1/galleries/open/items", headers=headers).status_code == 200


def test_a_deleted_key_is_refused_at_once_and_no_list_shows_a_secret(admin: TestClient) -> None:
    created = admin.post("/v1/keys", json={"name": "gone", "scopes": ["search"]}).json()
    listed = admin.get("/v1/keys").json()["keys"]
    assert {entry["name"] for entry in listed} == {"admin", "gone"}
    assert created["secret"] not in json.dumps(listed)
    assert admin.delete(f"/v1/keys/{created['id']}").status_code == 204
    check_problem(admin.get("/v1/limits", headers=bearer(created["secret"])), 401, "unauthorized")
    check_problem(admin.delete(f"/v1/keys/{created['id']}"), 404, "key-not-found")


@pytest.mark.parametrize(
    "body",
    [
        {"name": "x", "scopes": []},
        {"name": "x", "scopes": ["root"]},
        {"name": "x", "scopes": ["search"], "galleries": []},
        {"name": "", "scopes": ["search"]},
    ],
)
def test_a_key_that_cannot_be_is_refused(admin: TestClient, body: Any) -> None:
    check_problem(admin.post("/v1/keys", json=body), 422, "invalid-request")


def test_a_key_for_a_gallery_that_is_not_there_is_refused(admin: TestClient) -> None:
    body = {"name": "x", "scopes": ["search"], "galleries": ["absent"]}
    check_problem(admin.post("/v1/keys", json=body), 422, "bad-key")


def test_keys_are_paged(admin: TestClient) -> None:
    for _ in range(4):
        key(admin, "search")
    seen: list[str] = []
    params: dict[str, Any] = {"limit": 2}
    while True:
        page = admin.get("/v1/keys", params=params).json()
        seen += [entry["id"] for entry in page["keys"]]
        if page["next_cursor"] is None:
            break
        params["cursor"] = page["next_cursor"]
    assert len(seen) == len(set(seen)) == 5


def test_the_audit_tells_who_searched_and_changed_what_and_holds_no_image(admin: TestClient) -> None:
    created = admin.post("/v1/keys", json={"name": "k", "scopes": ["search", "write"]}).json()
    admin.post(
        "/v1/galleries/open/search",
        files=[("images", crop(1))],
        data={"query": '{"k": 1, "filter": {"cameras": ["c9"]}}'},
        headers=bearer(created["secret"]),
    )
    admin.delete("/v1/galleries/open/items?identity=p1", headers=bearer(created["secret"]))
    admin.post("/v1/galleries/open/search", json={"item_id": "p2"})
    entries = admin.get("/v1/audit").json()["entries"]
    actions = [(entry["action"], entry["gallery"]) for entry in entries]
    assert actions[:4] == [("search", "open"), ("items.delete", "open"), ("search", "open"), ("key.create", None)]
    assert actions[-3:] == [("items.put", "open"), ("gallery.create", "closed"), ("gallery.create", "open")]
    deletion, found = entries[1], entries[2]
    assert deletion["key_id"] == found["key_id"] == created["id"] != entries[0]["key_id"]
    assert deletion["detail"].keys() == {"identity", "deleted", "receipt"}
    assert (deletion["detail"]["identity"], deletion["detail"]["deleted"]) == (["p1"], 1)
    assert found["detail"] == {"images": 1, "k": 1, "filter": {"cameras": ["c9"]}, "hits": 0}
    assert created["secret"] not in json.dumps(entries)
    page = admin.get("/v1/audit", params={"limit": 2}).json()
    rest = admin.get("/v1/audit", params={"limit": 1000, "cursor": page["next_cursor"]}).json()
    assert page["entries"] + rest["entries"] == entries


def test_on_loopback_no_key_is_needed(client: TestClient) -> None:
    assert client.get("/v1/galleries").status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "192.168.0.7:8000"])
def test_without_keys_a_name_that_is_not_loopback_is_refused(client: TestClient, host: str) -> None:
    """A web page can point a name of its own at 127.0.0.1 (DNS rebinding)."""
    for path in ("/v1/galleries", "/readyz", "/"):
        check_problem(client.get(path, headers={"Host": host}), 403, "forbidden")


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1", "[::1]:8000"])
def test_without_keys_every_loopback_name_is_answered(client: TestClient, host: str) -> None:
    assert client.get("/v1/galleries", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "Via"])
def test_without_keys_what_a_proxy_passes_on_is_refused(client: TestClient, header: str) -> None:
    answer = client.get("/v1/galleries", headers={header: "192.0.2.1"})
    check_problem(answer, 403, "forbidden")
    assert "VIREID_AUTH=required" in answer.json()["detail"]


def test_without_keys_pages_of_other_origins_are_refused(client: TestClient) -> None:
    """A browser sends forms to any address, whatever CORS says."""
    for origin in ("https://evil.example", "http://127.0.0.1:9999", "null"):
        check_problem(client.post("/v1/galleries", json={"name": "x"}, headers={"Origin": origin}), 403, "forbidden")
    own = client.get("/v1/galleries", headers={"Origin": "http://127.0.0.1:8000", "Host": "127.0.0.1:8000"})
    assert own.status_code == 200


def test_a_restricted_search_does_not_reach_into_another_gallery(admin: TestClient) -> None:
    headers = key(admin, "search", galleries=["open"])
    answer = admin.post("/v1/galleries/closed/search", files=[("images", crop(1))], headers=headers)
    check_problem(answer, 403, "forbidden")
    assert search(admin, "closed", [crop(1)]).status_code == 200
