"""Alive, ready, limits, models, metrics, the page, and what every answer carries."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager
from threading import Event

import pytest
from fastapi.testclient import TestClient

from models.card import Card, Modality
from server.embedding.batcher import Priority
from server.embedding.providers import CPU
from server.gallery.protocol import Loaded
from server.gallery.store import SqlStore
from tests.server.calls import add_people, check_problem, nothing_decoded, search
from tests.server.conftest import MAX_IMAGE_BYTES, MAX_IMAGES, Start
from tests.server.pictures import crop


def test_ready_reports_facts(client: TestClient, gallery: str) -> None:
    add_people(client, gallery, [1], Modality.INFRARED)
    facts = client.get("/readyz").json()
    assert (facts["ready"], facts["reasons"], facts["queue_depth"]) == (True, [], 0)
    card = client.get("/v1/models/standin").json()
    assert facts["models"] == [
        {"name": "standin", "fingerprint": card["fingerprint"], "provider": CPU, "precision": "fp32"}
    ]
    assert facts["galleries"][gallery] == {
        "store_sequence": 1,
        "index_sequence": 1,
        "index": "exact",
        "recall": None,
    }
    assert facts["recall"] is None


def test_a_dead_inference_thread_turns_ready_off_and_is_said(start: Start) -> None:
    with start() as client:
        client.post("/v1/galleries", json={"name": "g"})
        client.app.state.service.models.batcher.close()  # type: ignore[attr-defined]
        problem = check_problem(client.get("/readyz"), 503, "not-ready")
        assert problem["facts"]["ready"] is False
        assert problem["facts"]["reasons"] == ["the server is shutting down"]
        check_problem(search(client, "g", [crop(1)]), 503, "not-ready")
        assert client.get("/healthz").status_code == 200
        assert "vireid_ready 0.0" in client.get("/metrics").text


def test_while_galleries_are_loaded_it_answers_503_and_says_how_far_it_is(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    with start() as client:
        client.post("/v1/galleries", json={"name": "g"})
        add_people(client, "g", [1, 2, 3], Modality.INFRARED)
    begun, go_on = Event(), Event()
    load = SqlStore.load

    def slow(store: SqlStore, name: str, since: int = 0) -> AbstractContextManager[Loaded]:
        begun.set()
        assert go_on.wait(10)
        return load(store, name, since)

    monkeypatch.setattr(SqlStore, "load", slow)
    monkeypatch.setattr("tests.server.conftest.wait_until_loaded", lambda _app: None)
    with start() as client:
        assert begun.wait(10)
        problem = check_problem(client.get("/readyz"), 503, "not-ready")
        assert problem["facts"]["reasons"] == ["1 galleries are still being loaded"]
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
        client.app.state.service.galleries.loading.result(10)  # type: ignore[attr-defined]
        facts = client.get("/readyz").json()
        assert (facts["ready"], facts["load"]) == (True, {})
        assert len(search(client, "g", [crop(1)]).json()["hits"]) == 3


def test_the_limits_are_those_in_force(client: TestClient) -> None:
    limits = client.get("/v1/limits").json()
    assert (limits["max_images"], limits["max_image_bytes"]) == (MAX_IMAGES, MAX_IMAGE_BYTES)
    assert (limits["max_k"], limits["max_query_images"], limits["max_page"]) == (1000, 16, 1000)
    assert limits["formats"] == ["jpeg", "png", "webp", "bmp"]


def test_the_models_are_their_cards(client: TestClient) -> None:
    answer = client.get("/v1/models").json()
    assert answer["default"] == "standin"
    assert Card.model_validate(answer["models"][0]).name == "standin"
    assert client.get("/v1/models/standin").json() == answer["models"][0]


@pytest.mark.parametrize("path", ["/", "/healthz", "/v1/limits", "/nowhere", "/openapi.json", "/metrics"])
def test_every_answer_carries_its_id_its_timing_and_safety_headers(client: TestClient, path: str) -> None:
    headers = client.get(path, headers={"X-Request-Id": "abc-1"}).headers
    assert headers["x-request-id"] == "abc-1"
    stages = dict(re.findall(r"(\w+);dur=([\d.]+)", headers["server-timing"]))
    assert list(stages) == ["queue", "decode", "embed", "search", "total"]
    assert float(stages["total"]) > 0
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert "access-control-allow-origin" not in headers


def test_metrics_count_stages_batches_problems_and_name_no_gallery(client: TestClient, gallery: str) -> None:
    search(client, gallery, [crop(1)])
    client.get(f"/v1/galleries/{gallery}/items/absent")
    text = client.get("/metrics").text
    for expected in (
        'vireid_stage_seconds_count{stage="embed"}',
        'vireid_batch_images_count{model="standin"}',
        'vireid_problems_total{type="item-not-found"}',
        f'provider="{CPU}"',
        "vireid_images_in_flight 0.0",
        "vireid_queue_images 0.0",
        'vireid_requests_total{method="POST",route="/v1/galleries/{gallery}/search",status="200"}',
    ):
        assert expected in text
    assert gallery not in text


def test_the_page_and_its_parts_ask_nobody_else(client: TestClient) -> None:
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    parts = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert parts
    for part in parts:
        assert part.startswith("/")
        answer = client.get(part)
        assert answer.status_code == 200
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", answer.text)
    assert "style=" not in page.text
    assert not re.search(r"<script(?![^>]*src=)|\son\w+=", page.text)


def test_a_caller_who_leaves_gives_his_permits_back(client: TestClient, gallery: str) -> None:
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
