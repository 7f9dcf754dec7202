"""Health, limits, models, metrics, the web page and the headers of every response."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager
from threading import Event

import pytest
from fastapi.testclient import TestClient

from models.card import Card, Modality
from server.api.page import page_files
from server.embedding.batcher import Priority
from server.embedding.providers import CPU
from server.storage.protocol import LoadedGallery
from server.storage.sql_store import SqlStore
from tests.server.calls import add, add_people, check_problem, nothing_decoded, search
from tests.server.conftest import MAX_IMAGE_BYTES, MAX_IMAGES, Start
from tests.server.image_files import crop


def test_readiness_reports_the_state_of_the_server(client: TestClient, gallery: str) -> None:
    add_people(client, gallery, [1], Modality.INFRARED)
    details = client.get("/readyz").json()
    assert (details["ready"], details["reasons"], details["queue_depth"]) == (True, [], 0)
    card = client.get("/v1/models/stub").json()
    assert details["models"] == [
        {"name": "stub", "fingerprint": card["fingerprint"], "provider": CPU, "precision": "fp32"}
    ]
    assert details["galleries"][gallery] == {
        "store_sequence": 1,
        "index_sequence": 1,
        "index": "exact",
        "recall": None,
    }
    assert details["recall"] is None


def test_dead_inference_thread_makes_the_server_not_ready(start: Start) -> None:
    with start() as client:
        client.post("/v1/galleries", json={"name": "g"})
        client.app.state.service.models.batcher.close()  # type: ignore[attr-defined]
        problem = check_problem(client.get("/readyz"), 503, "not-ready")
        assert problem["facts"]["ready"] is False
        assert problem["facts"]["reasons"] == ["the server is shutting down"]
        check_problem(search(client, "g", [crop(1)]), 503, "not-ready")
        assert client.get("/healthz").status_code == 200
        assert "vireid_ready 0.0" in client.get("/metrics").text


def test_loading_server_answers_503_and_reports_progress(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    with start() as client:
        client.post("/v1/galleries", json={"name": "g"})
        add_people(client, "g", [1, 2, 3], Modality.INFRARED)
    begun, go_on = Event(), Event()
    load = SqlStore.load

    def slow(store: SqlStore, name: str, since: int = 0) -> AbstractContextManager[LoadedGallery]:
        begun.set()
        assert go_on.wait(10)
        return load(store, name, since)

    monkeypatch.setattr(SqlStore, "load", slow)
    monkeypatch.setattr("tests.server.conftest.wait_until_loaded", lambda _app: None)
    with start() as client:
        assert begun.wait(10)
        problem = check_problem(client.get("/readyz"), 503, "not-ready")
        assert problem["facts"]["reasons"] == ["1 galleries are still being loaded (0 of 3 items)"]
        assert problem["facts"]["load"] == {"g": {"done": 0, "total": 3}}
        assert client.get("/healthz").status_code == 200
        for answer in (
            search(client, "g", [crop(1)]),
            client.get("/v1/galleries/g"),
            client.get("/v1/galleries/g/items"),
            client.delete("/v1/galleries/g/items/p1"),
            client.get("/v1/galleries"),
        ):
            check_problem(answer, 503, "not-ready")
        check_problem(client.get("/v1/galleries/other"), 404, "gallery-not-found")
        go_on.set()
        client.app.state.service.galleries.loader.loading.result(10)  # type: ignore[attr-defined]
        details = client.get("/readyz").json()
        assert (details["ready"], details["load"]) == (True, {})
        assert len(search(client, "g", [crop(1)]).json()["hits"]) == 3


def test_limits_equal_the_settings(client: TestClient) -> None:
    limits = client.get("/v1/limits").json()
    assert (limits["max_images"], limits["max_image_bytes"]) == (MAX_IMAGES, MAX_IMAGE_BYTES)
    assert (limits["max_k"], limits["max_query_images"], limits["max_page"]) == (1000, 16, 1000)
    assert limits["formats"] == ["jpeg", "png", "webp", "bmp", "tiff", "gif", "avif"]


def test_models_are_described_by_their_cards(client: TestClient) -> None:
    answer = client.get("/v1/models").json()
    assert answer["default"] == "stub"
    assert Card.model_validate(answer["models"][0]).name == "stub"
    assert client.get("/v1/models/stub").json() == answer["models"][0]


@pytest.mark.parametrize("path", ["/", "/healthz", "/v1/limits", "/nowhere", "/openapi.json", "/metrics"])
def test_every_response_has_request_id_timing_and_security_headers(client: TestClient, path: str) -> None:
    headers = client.get(path, headers={"X-Request-Id": "abc-1"}).headers
    assert headers["x-request-id"] == "abc-1"
    stages = dict(re.findall(r"(\w+);dur=([\d.]+)", headers["server-timing"]))
    assert list(stages) == ["queue", "decode", "embed", "search", "total"]
    assert float(stages["total"]) > 0
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert headers["x-frame-options"] == "DENY"
    assert "access-control-allow-origin" not in headers


def test_metrics_count_stages_batches_and_problems_without_gallery_names(client: TestClient, gallery: str) -> None:
    search(client, gallery, [crop(1)])
    client.get(f"/v1/galleries/{gallery}/items/absent")
    text = client.get("/metrics").text
    for expected in (
        'vireid_stage_seconds_count{stage="embed"}',
        'vireid_batch_images_count{model="stub"}',
        'vireid_problems_total{type="item-not-found"}',
        f'provider="{CPU}"',
        "vireid_images_in_flight 0.0",
        "vireid_queue_images 0.0",
        'vireid_requests_total{method="POST",route="/v1/galleries/{gallery}/search",status="200"}',
    ):
        assert expected in text
    assert gallery not in text


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/", "/metrics", "/page.js", "/v1/limits", "/v1/galleries"])
def test_head_is_answered_like_get_without_a_body(client: TestClient, path: str) -> None:
    answer, expected = client.head(path), client.get(path)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"] == expected.headers["content-type"]


def test_head_of_a_thumbnail_and_of_a_missing_item(client: TestClient, gallery: str) -> None:
    add(client, gallery, [crop(1)], [{"id": "a", "modality": "auto"}])
    assert client.head(f"/v1/galleries/{gallery}/items/a/image").status_code == 200
    assert client.head(f"/v1/galleries/{gallery}/items/b/image").status_code == 404
    assert client.head(f"/v1/galleries/{gallery}/search").status_code == 405


@pytest.mark.parametrize("path", ["", "/vireid"])
def test_server_works_under_a_prefix_whether_the_proxy_removes_it_or_not(start: Start, path: str) -> None:
    with start(root_path="/vireid") as client:
        created = client.post(f"{path}/v1/galleries", json={"name": "g"})
        assert created.headers["location"] == "/vireid/v1/galleries/g"
        assert client.get(f"{path}/").text.startswith("<!doctype html>")
        assert client.get(f"{path}/healthz").status_code == 200
        assert client.get("/vireid", follow_redirects=False).headers["location"] == "/vireid/"
        assert client.get("/vireidx/healthz").status_code == 404


def test_prefix_does_not_bypass_authentication(start: Start) -> None:
    with start(root_path="/vireid", auth="required") as client:
        for path in ("/v1/galleries", "/vireid/v1/galleries", "/vireid/metrics", "/vireid/vireid/v1/galleries"):
            assert client.get(path).status_code in {401, 404}, path
        assert client.get("/vireid/v1/galleries").status_code == 401


def test_page_loads_no_external_resources(client: TestClient) -> None:
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    parts = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert parts
    for part in parts:
        assert re.fullmatch(r"[a-z.]+", part), "relative, so that it works behind a path prefix"
    for part in {*parts, *(name for name in page_files() if not name.endswith(".txt"))}:
        answer = client.get(f"/{part}")
        assert answer.status_code == 200
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", answer.text)
        assert not re.search(r"""["'`(]/(?:v1|readyz|[a-z]+\.(?:css|js|svg))""", answer.text)
    assert "style=" not in page.text
    assert not re.search(r"<script(?![^>]*src=)|\son\w+=", page.text)


def test_permits_are_released_when_the_caller_disconnects(client: TestClient, gallery: str) -> None:
    boundary = b"x"
    body = b'--x\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\n' + crop(1) + b"\r\n--x--\r\n"
    incoming = [{"type": "http.request", "body": body}]
    sent: list[object] = []

    async def receive():  # type: ignore[no-untyped-def]
        return incoming.pop() if incoming else {"type": "http.disconnect"}

    async def send(message: object) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "path": f"/v1/galleries/{gallery}/search",
        "query_string": b"",
        "headers": [(b"host", b"127.0.0.1"), (b"content-type", b"multipart/form-data; boundary=" + boundary)],
    }
    with nothing_decoded(client, Priority.QUERY):
        assert client.portal is not None
        client.portal.call(client.app, scope, receive, send)
    assert sent == []
    assert client.app.state.service.admission.in_flight == 0  # type: ignore[attr-defined]
    assert 'status="499"' in client.get("/metrics").text
