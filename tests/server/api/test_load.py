"""A server under load: what is blocked blocks nothing else, and what waits too long is dropped."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event, Semaphore

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response

from models.card import Modality
from server.domain.errors import NotReady
from server.embedding.batcher import Priority
from server.gallery.query import GalleryQuery
from tests.server.api.test_auth import bearer, first_key
from tests.server.calls import add_people, check_problem, nothing_decoded
from tests.server.conftest import Start
from tests.server.image_files import crop

ANSWERED = ("/healthz", "/readyz", "/v1/models")


def post_crop(client: TestClient) -> Response:
    return client.post("/v1/embeddings", files=[("images", crop(1))])


@contextmanager
def scans_blocked(monkeypatch: pytest.MonkeyPatch) -> Iterator[Semaphore]:
    """Block duplicates and batches of searches; yields how many have begun."""
    begun, released = Semaphore(0), Event()

    def block(*_: object, **__: object) -> object:
        begun.release()
        assert released.wait(60)
        raise NotReady(["released"])

    with monkeypatch.context() as patch:
        patch.setattr(GalleryQuery, "duplicates", block)
        patch.setattr("server.api.search._answer_many", block)
        try:
            yield begun
        finally:
            released.set()


def test_blocked_scans_delay_neither_health_nor_searches(
    client: TestClient, gallery: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_people(client, gallery, [1, 2], Modality.INFRARED)
    with ThreadPoolExecutor(40) as pool, scans_blocked(monkeypatch) as begun:
        running: list[Future[Response]] = []
        for _ in range(20):
            running.append(pool.submit(client.get, f"/v1/galleries/{gallery}/duplicates"))
            searches = {"searches": [{"item_id": "p1"}]}
            running.append(pool.submit(client.post, f"/v1/galleries/{gallery}/searches", json=searches))
        assert begun.acquire(timeout=60)
        assert begun.acquire(timeout=60)
        for path in ANSWERED:
            assert client.get(path).status_code == 200
        answer = client.post(f"/v1/galleries/{gallery}/search", json={"item_id": "p1"})
        assert answer.status_code == 200
        assert not any(future.done() for future in running)
    assert {future.result().status_code for future in running} <= {200, 503}  # those that still waited are served


def test_health_and_authentication_are_answered_while_all_other_threads_are_busy(
    start: Start, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, released = Semaphore(0), Event()

    def block(*_: object, **__: object) -> object:
        begun.release()
        assert released.wait(60)
        raise NotReady(["released"])

    with start(auth="required") as client, ThreadPoolExecutor(20) as pool:
        client.headers |= bearer(first_key(capsys.readouterr().out))
        monkeypatch.setattr("server.gallery.catalog.GalleryCatalog.list", block)
        running = [pool.submit(client.get, "/v1/galleries") for _ in range(16)]
        try:
            assert all(begun.acquire(timeout=60) for _ in running)
            for path in ("/healthz", "/readyz"):
                assert client.get(path).status_code == 200
            check_problem(client.get("/v1/keys", headers={"Authorization": "Bearer wrong"}), 401, "unauthorized")
        finally:
            released.set()
        for future in running:
            future.result()


def test_images_that_wait_too_long_are_dropped(start: Start) -> None:
    with start(request_timeout_s=0.1) as client:
        with nothing_decoded(client, Priority.QUERY):
            answer = post_crop(client)
            check_problem(answer, 503, "deadline-exceeded")
            assert answer.headers["retry-after"] == "5"
            assert client.app.state.service.admission.in_flight == 0  # type: ignore[attr-defined]
        assert client.app.state.service.models.batcher.depth == 0  # type: ignore[attr-defined]


def test_scans_that_wait_too_long_are_dropped(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    with start(request_timeout_s=0.1) as client, ThreadPoolExecutor(2) as pool:
        assert client.post("/v1/galleries", json={"name": "g"}).status_code == 201
        with scans_blocked(monkeypatch) as begun:
            running = [pool.submit(client.get, "/v1/galleries/g/duplicates") for _ in range(2)]
            assert begun.acquire(timeout=60)
            assert begun.acquire(timeout=60)
            check_problem(client.get("/v1/galleries/g/duplicates"), 503, "deadline-exceeded")
        assert {future.result().status_code for future in running} == {503}
        assert client.get("/v1/galleries/g/duplicates").status_code == 200


def test_address_without_a_valid_key_is_limited_for_a_while(
    start: Start, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with start(auth="required", failed_auth_per_minute=3) as client:
        valid = bearer(first_key(capsys.readouterr().out))
        for headers in ({}, bearer("wrong"), bearer("vireid_" + "x" * 43)):
            check_problem(client.get("/v1/models", headers=headers), 401, "unauthorized")
        for headers in (bearer("wrong"), valid):
            answer = client.get("/v1/models", headers=headers)
            check_problem(answer, 429, "too-many-failures")
            assert 1 <= int(answer.headers["retry-after"]) <= 20
        assert client.get("/readyz").status_code == 200
        later = time.monotonic() + 60
        monkeypatch.setattr("server.api.rates.time.monotonic", lambda: later)
        for _ in range(5):
            assert client.get("/v1/models", headers=valid).status_code == 200


@pytest.mark.parametrize(
    "options", [{}, {"failed_auth_per_minute": 0}, {"host": "0.0.0.0", "failed_auth_per_minute": 0}]
)
def test_failures_are_not_limited_on_loopback_or_when_switched_off(
    start: Start, capsys: pytest.CaptureFixture[str], options: dict[str, object]
) -> None:
    with start(auth="required", **options) as client:
        for _ in range(40):
            check_problem(client.get("/v1/models", headers=bearer("wrong")), 401, "unauthorized")
    first_key(capsys.readouterr().out)


def test_failures_are_limited_by_default_elsewhere(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    with start(host="0.0.0.0") as client:
        statuses = [client.get("/v1/models").status_code for _ in range(31)]
    assert statuses == [401] * 30 + [429]
    first_key(capsys.readouterr().out)


def test_json_is_short_except_where_it_is_read_in_parts(client: TestClient, gallery: str) -> None:
    """Parsing a long body at once would stop every other request meanwhile."""
    long = b'{"name": "' + b"x" * (8 << 20) + b'"}'
    for path, kind in (
        ("/v1/galleries", "application/json"),
        (f"/v1/galleries/{gallery}/searches", "application/json"),
        (f"/v1/galleries/{gallery}/imports", "application/json"),
        ("/v1/keys", "application/merge-patch+json"),
    ):
        check_problem(client.post(path, content=long, headers={"Content-Type": kind}), 413, "body-too-large")
    kind = "application/json"
    answer = client.post(f"/v1/galleries/{gallery}/vectors", content=long, headers={"Content-Type": kind})
    check_problem(answer, 422, "invalid-request")
