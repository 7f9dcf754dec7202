"""Authentication, scopes, API keys and the audit log."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import pytest
from fastapi.testclient import TestClient

from models.card import Modality
from tests.server.calls import add, add_people, check_problem, search
from tests.server.conftest import Start
from tests.server.image_files import crop


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
    """Return the headers of a new key."""
    answer = admin.post("/v1/keys", json={"name": "k", "scopes": list(scopes), "galleries": galleries})
    assert answer.status_code == 201, answer.text
    return bearer(answer.json()["secret"])


def test_first_start_prints_an_admin_key_once(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    with start(auth="required") as client:
        secret = first_key(capsys.readouterr().out)
        assert client.get("/v1/keys", headers=bearer(secret)).status_code == 200
        assert client.get("/v1/keys", headers={"X-API-Key": secret}).status_code == 200
    with start(auth="required") as client:
        assert "vireid_" not in capsys.readouterr().out
        assert client.get("/v1/keys", headers=bearer(secret)).status_code == 200


def test_every_path_below_v1_requires_a_key(admin: TestClient) -> None:
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


def test_key_is_checked_before_the_body_is_read(admin: TestClient) -> None:
    read = []

    def body() -> Iterator[bytes]:
        read.append(True)
        yield b"x"

    answer = admin.post("/v1/embeddings", content=body(), headers={"Authorization": "Bearer wrong"})
    check_problem(answer, 401, "unauthorized")
    assert read == []


def test_health_and_page_need_no_key_and_name_no_gallery(admin: TestClient) -> None:
    anonymous = {"Authorization": ""}
    for path in ("/", "/healthz", "/readyz", "/openapi.json"):
        assert admin.get(path, headers=anonymous).status_code == 200
    assert admin.get("/readyz", headers=anonymous).json()["galleries"] is None


def test_search_key_can_read_and_search_but_not_write(admin: TestClient) -> None:
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


def test_write_key_can_write_but_not_read(admin: TestClient) -> None:
    headers = key(admin, "write")
    assert add(admin, "open", [crop(3)], [{"id": "p3", "modality": "visible"}], headers=headers).status_code == 201
    for path in ("/v1/galleries/open/items", "/v1/galleries/open/items/p1/image", "/v1/keys", "/v1/audit"):
        check_problem(admin.get(path, headers=headers), 403, "forbidden")


def test_calibrating_needs_the_write_scope_for_the_gallery(admin: TestClient) -> None:
    path = "/v1/galleries/open/calibrations"
    search, elsewhere = key(admin, "search"), key(admin, "search", "write", galleries=["closed"])
    for headers in (search, elsewhere):
        check_problem(admin.post(path, json={}, headers=headers), 403, "forbidden")
    assert admin.get(path, headers=search).json() == {"calibrations": []}
    check_problem(admin.get(path, headers=elsewhere), 403, "forbidden")
    assert admin.post(path, json={}, headers=key(admin, "write")).status_code == 202


def test_key_for_one_gallery_cannot_access_others(admin: TestClient) -> None:
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


def test_admin_key_for_one_gallery_cannot_manage_keys(admin: TestClient) -> None:
    headers = key(admin, "admin", galleries=["open"])
    body = {"name": "wider", "scopes": ["admin"]}
    check_problem(admin.post("/v1/keys", json=body, headers=headers), 403, "forbidden")
    assert admin.get("/v1/galleries/open/items", headers=headers).status_code == 200


def test_deleted_key_is_rejected_immediately_and_lists_show_no_secret(admin: TestClient) -> None:
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
def test_invalid_key_options_are_rejected(admin: TestClient, body: Any) -> None:
    check_problem(admin.post("/v1/keys", json=body), 422, "invalid-request")


def test_key_for_a_missing_gallery_is_rejected(admin: TestClient) -> None:
    body = {"name": "x", "scopes": ["search"], "galleries": ["absent"]}
    check_problem(admin.post("/v1/keys", json=body), 422, "bad-key")


def test_list_of_keys_is_paged(admin: TestClient) -> None:
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


def test_audit_log_records_searches_and_changes_without_images(admin: TestClient) -> None:
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
    assert deletion["detail"].keys() == {"identities", "deleted", "receipt"}
    assert (deletion["detail"]["identities"], deletion["detail"]["deleted"]) == (["p1"], 1)
    assert found["detail"] == {
        "images": 1,
        "crops_sha256": [sha256(crop(1)).hexdigest()],
        "k": 1,
        "filter": {"cameras": ["c9"]},
        "hits": 0,
        "found": [],
    }
    assert created["secret"] not in json.dumps(entries)
    page = admin.get("/v1/audit", params={"limit": 2}).json()
    rest = admin.get("/v1/audit", params={"limit": 1000, "cursor": page["next_cursor"]}).json()
    assert page["entries"] + rest["entries"] == entries


def test_no_key_is_required_on_loopback(client: TestClient) -> None:
    assert client.get("/v1/galleries").status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "192.168.0.7:8000"])
def test_without_keys_a_host_name_other_than_loopback_is_rejected(client: TestClient, host: str) -> None:
    """A web page can point a name of its own at 127.0.0.1 (DNS rebinding)."""
    for path in ("/v1/galleries", "/readyz", "/"):
        check_problem(client.get(path, headers={"Host": host}), 403, "forbidden")


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1", "[::1]:8000"])
def test_without_keys_every_loopback_name_is_accepted(client: TestClient, host: str) -> None:
    assert client.get("/v1/galleries", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "Via"])
def test_without_keys_requests_through_a_proxy_are_rejected(client: TestClient, header: str) -> None:
    answer = client.get("/v1/galleries", headers={header: "192.0.2.1"})
    check_problem(answer, 403, "forbidden")
    assert "VIREID_AUTH=required" in answer.json()["detail"]


def test_without_keys_pages_of_other_origins_are_rejected(client: TestClient) -> None:
    """A browser sends forms to any address, whatever CORS says."""
    for origin in ("https://evil.example", "http://127.0.0.1:9999", "null"):
        check_problem(client.post("/v1/galleries", json={"name": "x"}, headers={"Origin": origin}), 403, "forbidden")
    own = client.get("/v1/galleries", headers={"Origin": "http://127.0.0.1:8000", "Host": "127.0.0.1:8000"})
    assert own.status_code == 200


def test_restricted_key_cannot_search_another_gallery(admin: TestClient) -> None:
    headers = key(admin, "search", galleries=["open"])
    answer = admin.post("/v1/galleries/closed/search", files=[("images", crop(1))], headers=headers)
    check_problem(answer, 403, "forbidden")
    assert search(admin, "closed", [crop(1)]).status_code == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_without_keys_other_sites_cannot_load_a_stored_crop(client: TestClient, gallery: str, site: str) -> None:
    """An image element sends no Origin, but says which site loads it."""
    add_people(client, gallery, [1], Modality.VISIBLE)
    path = f"/v1/galleries/{gallery}/items/p1/image"
    headers = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}
    refused = client.get(path, headers=headers)
    check_problem(refused, 403, "forbidden")
    for own in ("same-origin", "none"):
        answer = client.get(path, headers={**headers, "Sec-Fetch-Site": own})
        assert answer.status_code == 200
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert refused.headers["cross-origin-resource-policy"] == "same-origin"


_MALFORMED_HOSTS = ["[", "[::1", "127.0.0.1:99999", "127.0.0.1:8000:1", "a b", "127.0.0.1/", "user@127.0.0.1", "é"]
_MALFORMED_ORIGINS = ["http://[", "http://", "", "127.0.0.1:8000", "http://127.0.0.1:8000/", "http://a:99999", "null x"]
_MALFORMED = [("Host", value) for value in _MALFORMED_HOSTS] + [
    ("Origin", value) for value in _MALFORMED_ORIGINS if value
]


@pytest.mark.parametrize(("header", "value"), _MALFORMED)
def test_malformed_host_or_origin_is_answered_with_400(client: TestClient, header: str, value: str) -> None:
    for path in ("/", "/healthz", "/v1/galleries"):
        check_problem(client.get(path, headers={header: value.encode()}), 400, "malformed")  # type: ignore[dict-item]


def test_malformed_host_is_answered_with_400_where_keys_are_required(admin: TestClient) -> None:
    for header, value in _MALFORMED:
        check_problem(admin.get("/healthz", headers={header: value.encode()}), 400, "malformed")  # type: ignore[dict-item]


def test_refusal_over_an_alias_does_not_name_its_gallery(admin: TestClient) -> None:
    assert admin.put("/v1/aliases/front", json={"gallery": "closed"}).status_code == 200
    answer = admin.get("/v1/galleries/front", headers=key(admin, "search", galleries=["open"]))
    check_problem(answer, 403, "forbidden")
    assert "front" in answer.text
    assert "closed" not in answer.text


@pytest.mark.parametrize("number", [str(2**63), str(10**300), "-1", "1.5", "٣", "²", ""])
def test_forged_number_cursors_are_rejected(client: TestClient, gallery: str, number: str) -> None:
    cursor = base64.urlsafe_b64encode(number.encode()).decode()
    body = json.dumps({"id": "a", "modality": "visible", "vector": [0.0]})
    job = client.post(
        f"/v1/galleries/{gallery}/imports", content=body, headers={"Content-Type": "application/x-ndjson"}
    )
    for path in ("/v1/audit", f"/v1/jobs/{job.json()['id']}/failures"):
        answer = client.get(path, params={"cursor": cursor})
        assert check_problem(answer, 422, "invalid-request")["errors"][0]["field"] == "cursor"


def test_old_keys_cannot_read_a_gallery_created_again_under_the_same_name(admin: TestClient) -> None:
    headers = key(admin, "search", "write", galleries=["open"])
    assert admin.get("/v1/galleries/open", headers=headers).status_code == 200
    assert admin.delete("/v1/galleries/open").status_code == 204
    assert admin.post("/v1/galleries", json={"name": "open"}).status_code == 201
    check_problem(admin.get("/v1/galleries/open", headers=headers), 403, "forbidden")
    assert admin.get("/v1/galleries", headers=headers).json()["galleries"] == []


def test_keys_expire_and_rotate(admin: TestClient) -> None:
    expires = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    body = {"name": "k", "scopes": ["search"], "expires_at": expires}
    made = admin.post("/v1/keys", json=body).json()
    assert datetime.fromisoformat(made["expires_at"]) == datetime.fromisoformat(expires)
    rotated = admin.post(f"/v1/keys/{made['id']}/rotate", json={"overlap_s": 3600}).json()
    assert rotated["id"] == made["id"]
    assert rotated["secret"] != made["secret"]
    for secret in (made["secret"], rotated["secret"]):
        assert admin.get("/v1/limits", headers=bearer(secret)).status_code == 200
    assert admin.post(f"/v1/keys/{made['id']}/rotate", json={"overlap_s": 0}).status_code == 200
    for secret in (made["secret"], rotated["secret"]):
        check_problem(admin.get("/v1/limits", headers=bearer(secret)), 401, "unauthorized")
    check_problem(admin.post("/v1/keys/absent/rotate", json={}), 404, "key-not-found")
    past = {**body, "expires_at": "2020-01-01T00:00:00Z"}
    check_problem(admin.post("/v1/keys", json=past), 422, "bad-key")
    listed = {entry["id"]: entry for entry in admin.get("/v1/keys").json()["keys"]}
    assert listed[made["id"]]["last_used_at"] is not None


def test_last_admin_key_cannot_be_deleted(admin: TestClient) -> None:
    key(admin, "admin", galleries=["open"])
    (only,) = [entry["id"] for entry in admin.get("/v1/keys").json()["keys"] if entry["galleries"] is None]
    check_problem(admin.delete(f"/v1/keys/{only}"), 409, "last-admin-key")


def test_key_keeps_to_its_requests_per_minute(admin: TestClient) -> None:
    body = {"name": "k", "scopes": ["search"], "limits": {"requests_per_minute": 3}}
    made = admin.post("/v1/keys", json=body).json()
    assert made["limits"] == {"requests_per_minute": 3}
    answers = [admin.get("/v1/limits", headers=bearer(made["secret"])) for _ in range(4)]
    assert [answer.status_code for answer in answers[:3]] == [200] * 3
    check_problem(answers[3], 429, "rate-limited")
    assert 1 <= int(answers[3].headers["retry-after"]) <= 20
    assert admin.get("/v1/limits").status_code == 200


def test_rejected_keys_are_recorded_at_a_bounded_rate(admin: TestClient) -> None:
    for n in range(30):
        assert admin.get("/v1/limits", headers=bearer(f"vireid_wrong-{n}")).status_code == 401
    recorded = [entry for entry in admin.get("/v1/audit").json()["entries"] if entry["action"] == "key.rejected"]
    assert 10 <= len(recorded) <= 20  # at most ten each minute
    assert "wrong" not in json.dumps(recorded)
    assert recorded[0]["detail"].keys() == {"address", "secret_sha256_begins", "not_recorded_before"}
