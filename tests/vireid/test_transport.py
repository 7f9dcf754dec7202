"""How the client handles errors, busy servers and foreign servers. The server is a function here."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vireid.client import (
    ApiError,
    Client,
    ClientError,
    Filter,
    ItemFields,
    Limits,
    UnexpectedAnswer,
    Unreachable,
)
from vireid.client.payloads import batches

LIMITS = {
    "max_images": 3,
    "max_query_images": 2,
    "max_image_bytes": 10_000,
    "max_body_bytes": 20_000,
    "max_import_bytes": 30_000,
    "max_pixels": 1_000,
    "max_in_flight": 9,
    "max_k": 10,
    "max_searches": 2,
    "max_page": 2,
    "formats": ["png"],
}
PROBLEM = {
    "type": "/problems/overloaded",
    "title": "Too many images in flight",
    "status": 429,
    "detail": "Try again in 2 s.",
    "request_id": "abc",
}
GALLERY = {
    "name": "g",
    "model": "m",
    "fingerprint": "f",
    "dimension": 4,
    "items": 0,
    "created_at": "2026-01-01T00:00:00Z",
    "retention_days": None,
    "description": None,
    "vector_type": "float32",
    "thumbnails": True,
    "a_field_of_a_later_server": 1,
}

NO_RESULTS = {"added": 0, "updated": 0, "failed": 0, "items": []}

Handler = Callable[[httpx2.Request], httpx2.Response]


def busy(wait: str | None = "2") -> httpx2.Response:
    return httpx2.Response(429, json=PROBLEM, headers={} if wait is None else {"Retry-After": wait})


class ScriptedServer:
    """A server that returns the given responses, or calls them, one after the other and records the requests."""

    def __init__(self, answers: Sequence[httpx2.Response | Handler]) -> None:
        self.answers = iter(answers)
        self.requests: list[httpx2.Request] = []
        self.slept: list[float] = []

    def client(self, retries: int = 5) -> Client:
        transport = httpx2.MockTransport(self.answer)
        return Client(key="secret\n", retries=retries, transport=transport, sleep=self.slept.append)

    def answer(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        answer = next(self.answers)
        return answer if isinstance(answer, httpx2.Response) else answer(request)


def answered_by(handler: Handler) -> Client:
    return Client(transport=httpx2.MockTransport(handler))


def test_a_429_is_retried_after_retry_after_with_the_same_body() -> None:
    server = ScriptedServer(
        [httpx2.Response(200, json=LIMITS), busy("2"), busy("7"), httpx2.Response(200, json=NO_RESULTS)]
    )
    with server.client() as client:
        client.add_items("g", [(b"image", ItemFields(id="x", modality="auto"))])
    assert server.slept == [2.0, 7.0]
    bodies = {request.content for request in server.requests[1:]}
    assert len(bodies) == 1
    assert b"image" in bodies.pop()


def test_retries_end_at_the_limit_and_raise_the_last_problem() -> None:
    server = ScriptedServer([busy() for _ in range(4)])
    with server.client(retries=3) as client, pytest.raises(ApiError, match="429 Too many images in flight") as raised:
        client.limits()
    assert server.slept == [2.0, 2.0, 2.0]
    assert (raised.value.status, raised.value.retry_after) == (429, 2.0)
    assert raised.value.problem.request_id == "abc"


@pytest.mark.parametrize("wait", ["3600", "Wed, 21 Oct 2099 07:28:00 GMT"])
def test_a_429_with_a_long_retry_after_is_raised_at_once(wait: str | None) -> None:
    server = ScriptedServer([busy(wait)])
    with server.client() as client, pytest.raises(ApiError):
        client.limits()
    assert server.slept == []


def drop(request: httpx2.Request) -> httpx2.Response:
    raise httpx2.ReadError("Connection reset by peer", request=request)


@pytest.mark.parametrize("status", [502, 503, 504, None])
def test_an_unavailable_server_or_dropped_connection_is_retried_with_growing_waits(status: int | None) -> None:
    failures = [drop if status is None else httpx2.Response(status)] * 3
    server = ScriptedServer([*failures, httpx2.Response(200, json=GALLERY)])
    with server.client() as client:
        assert client.gallery("g").name == "g"
    assert [low <= wait <= 2 * low for low, wait in zip((0.5, 1, 2), server.slept, strict=True)] == [True] * 3


def test_retry_after_replaces_the_growing_wait() -> None:
    unavailable = httpx2.Response(503, headers={"Retry-After": "7"})
    server = ScriptedServer([unavailable, busy(None), httpx2.Response(200, json=GALLERY)])
    with server.client() as client:
        client.gallery("g")
    assert server.slept[0] == 7
    assert 1 <= server.slept[1] <= 2


@pytest.mark.parametrize("failure", [drop, httpx2.Response(503)])
def test_a_request_that_must_not_run_twice_is_not_retried(failure: Handler | httpx2.Response) -> None:
    calls: list[Callable[[Client], object]] = [
        lambda client: client.create_gallery("g"),
        lambda client: client.delete_gallery("g"),
        lambda client: client.create_key("desk", []),
        lambda client: client.reembed("g", "m"),
        lambda client: client.import_file("g", [b""], "tar"),
    ]
    for call in calls:
        server = ScriptedServer([failure])
        with server.client() as client, pytest.raises((ApiError, Unreachable)):
            call(client)
        assert (len(server.requests), server.slept) == (1, [])


def test_items_are_sent_again_with_the_same_idempotency_key() -> None:
    limits, added = httpx2.Response(200, json=LIMITS), httpx2.Response(200, json=NO_RESULTS)
    server = ScriptedServer([limits, drop, added, added])
    with server.client() as client:
        for _ in range(2):
            client.add_items("g", [(b"a", ItemFields(modality="auto"))])
    first, again, other = (request.headers["idempotency-key"] for request in server.requests[1:])
    assert first == again != other


def test_a_refused_connection_is_not_retried() -> None:
    def refuse(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError("Connection refused", request=request)

    server = ScriptedServer([refuse])
    with server.client() as client, pytest.raises(Unreachable):
        client.gallery("g")
    assert server.slept == []


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 415, 422, 500, 507])
def test_other_error_statuses_raise_the_problem_at_once(status: int) -> None:
    body = PROBLEM | {"status": status, "title": "No", "errors": [{"field": "query.k", "detail": "must be at most 9"}]}
    server = ScriptedServer([httpx2.Response(status, json=body, headers={"Retry-After": "1"})])
    with server.client() as client, pytest.raises(ApiError) as raised:
        client.gallery("g")
    assert raised.value.status == status
    assert [(error.field, error.detail) for error in raised.value.errors] == [("query.k", "must be at most 9")]
    assert str(raised.value) == f"{status} No: Try again in 2 s. (request abc)"
    assert server.slept == []


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (httpx2.Response(502, text="<html>Bad Gateway</html>"), "502 Bad Gateway"),
        (httpx2.Response(308, headers={"Location": "https://elsewhere/"}), "redirects to https://elsewhere/"),
    ],
)
def test_errors_of_a_proxy_are_reported_in_one_line(answer: httpx2.Response, words: str) -> None:
    with answered_by(lambda _: answer) as client, pytest.raises(ApiError) as raised:
        client.ready()
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_response_of_another_server_raises_unexpected_answer() -> None:
    with answered_by(lambda _: httpx2.Response(200, text="<html>")) as client, pytest.raises(UnexpectedAnswer):
        client.limits()


def test_an_unreachable_server_is_named_by_its_address() -> None:
    def refuse(_: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError("Connection refused")

    with answered_by(refuse) as client, pytest.raises(Unreachable, match=r"127\.0\.0\.1:8000: Connection refused"):
        client.limits()


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://x", "http://[::1", ""])
def test_an_invalid_url_raises_client_error(url: str) -> None:
    with pytest.raises(ClientError), Client(url) as client:
        client.limits()


def test_requests_carry_the_key_and_unknown_response_fields_are_ignored() -> None:
    server = ScriptedServer([httpx2.Response(200, json=GALLERY)])
    with server.client() as client:
        assert client.gallery("g").name == "g"
    assert server.requests[0].headers["authorization"] == "Bearer secret"


def test_lists_fetch_every_page() -> None:
    pages = {
        None: {"galleries": [GALLERY | {"name": "a"}, GALLERY | {"name": "b"}], "next_cursor": "Yg=="},
        "Yg==": {"galleries": [GALLERY | {"name": "c"}], "next_cursor": None},
    }

    def serve(request: httpx2.Request) -> httpx2.Response:
        if request.url.path == "/v1/limits":
            return httpx2.Response(200, json=LIMITS)
        assert request.url.params["limit"] == "2"
        return httpx2.Response(200, json=pages[request.url.params.get("cursor")])

    with answered_by(serve) as client:
        assert [gallery.name for gallery in client.galleries()] == ["a", "b", "c"]


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_a_name_that_would_change_the_path_is_rejected(name: str) -> None:
    with answered_by(lambda _: httpx2.Response(204)) as client, pytest.raises(ClientError, match="not a name or id"):
        client.delete_item("g", name)


def test_slashes_and_question_marks_in_names_are_escaped() -> None:
    server = ScriptedServer([httpx2.Response(204)])
    with server.client() as client:
        client.delete_gallery("a/../b?c")
    assert server.requests[0].url.raw_path == b"/v1/galleries/a%2F..%2Fb%3Fc"


def test_file_names_are_not_sent(tmp_path: Path) -> None:
    file = tmp_path / "john-doe.png"
    file.write_bytes(b"image")
    server = ScriptedServer([httpx2.Response(200, json=LIMITS), httpx2.Response(200, json=NO_RESULTS)])
    with server.client() as client:
        client.add_items("g", [(file, ItemFields(id="x", modality="auto"))])
    assert b"john" not in server.requests[1].content


def test_a_request_whose_images_all_fail_returns_results() -> None:
    faults = [{"field": "images[0]", "detail": "Empty."}, {"field": "items[1].id", "detail": "is too long"}]
    body = PROBLEM | {"status": 422, "title": "Uploads failed", "errors": faults}
    added = {"index": 0, "id": "a", "status": "added", "modality": "visible", "error": None}
    good = NO_RESULTS | {"items": [added | {"index": index} for index in range(3)]}
    answers = [httpx2.Response(200, json=LIMITS), httpx2.Response(201, json=good), httpx2.Response(422, json=body)]
    with ScriptedServer(answers).client() as client:
        results = client.add_items("g", [(b"x", ItemFields(modality="auto"))] * 5)
    assert [(result.index, result.status) for result in results] == [
        (0, "added"), (1, "added"), (2, "added"), (3, "failed"), (4, "failed"),
    ]  # fmt: skip
    assert [result.error.detail for result in results if result.error] == ["Empty.", "is too long"]


def test_a_rejected_request_raises() -> None:
    body = PROBLEM | {"status": 413, "title": "Body too large", "errors": []}
    server = ScriptedServer([httpx2.Response(200, json=LIMITS), httpx2.Response(413, json=body)])
    with server.client() as client, pytest.raises(ApiError, match="413"):
        client.add_items("g", [(b"x", ItemFields(modality="auto"))])


def test_positions_in_errors_count_across_requests() -> None:
    body = PROBLEM | {"status": 422, "errors": [{"field": "images[1]", "detail": "Broken."}]}

    def serve(request: httpx2.Request) -> httpx2.Response:
        if request.url.path == "/v1/limits":
            return httpx2.Response(200, json=LIMITS)
        if b"broken" in request.content:
            return httpx2.Response(422, json=body)
        header = b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (3, 1), }"
        return httpx2.Response(200, content=header.ljust(127) + b"\n" + b"\0" * 12)

    with answered_by(serve) as client, pytest.raises(ApiError) as raised:
        client.embed([b"1", b"2", b"3", b"4", b"broken", b"6"])
    assert raised.value.by_position == {4: "Broken."}
    assert raised.value.errors[0].field == "images[4]"


@given(st.lists(st.integers(0, 12_000), max_size=30), st.integers(1, 5))
def test_batches_keep_the_order_respect_the_limits_and_are_as_large_as_possible(sizes: list[int], at_most: int) -> None:
    limits = Limits.model_validate(LIMITS)
    found = list(batches(limits, sizes, lambda size: size, at_most))
    assert [size for batch in found for size in batch] == sizes
    for batch in found:
        assert 1 <= len(batch) <= at_most
        assert sum(batch) <= limits.max_body_bytes
    for batch, following in pairwise(found):
        would_be = sum(batch) + following[0] + 1024 * (len(batch) + 1)
        assert len(batch) == at_most or would_be > limits.max_body_bytes


def test_a_search_requires_exactly_one_kind_of_query() -> None:
    with answered_by(lambda _: httpx2.Response(500)) as client:
        for query in ({}, {"images": [b"x"], "item_id": "y"}):
            with pytest.raises(ValueError, match="exactly one"):
                client.search("g", **query)  # type: ignore[arg-type]


def test_updates_send_only_the_given_fields_and_require_a_time_zone() -> None:
    item: dict[str, object] = {
        "id": "x",
        "identity": None,
        "modality": "visible",
        "camera": "c",
        "captured_at": None,
        "attributes": {},
        "warnings": [],
        "content_sha256": None,
    }
    server = ScriptedServer([httpx2.Response(200, json=item)])
    with server.client() as client:
        client.update_item("g", "x", identity=None, camera="c")
        with pytest.raises(ValueError, match="timezone"):
            client.update_item("g", "x", captured_at=datetime(2026, 1, 1))
    assert json.loads(server.requests[0].content) == {"identity": None, "camera": "c"}


def test_unknown_fields_are_ignored_at_every_depth_but_sent_ones_are_rejected() -> None:
    later = {"a_field_of_a_later_server": 1}
    item = {"id": "x", "identity": None, "modality": "visible", "camera": None, "captured_at": None, "attributes": {}}
    hit = {"rank": 1, "score": 0.5, "false_match_rate": None, "rerank_distance": None}
    timing = {"queue": 0, "decode": 0, "embed": 0, "search": 0, "total": 0}
    answer = {
        "gallery": "g", "model": "m", "fingerprint": "f", "modality": ["visible"], "warnings": [[]], "searched": 1,
        "exact": True, "recall": None, "reranked": False, "groups": None, "next_cursor": None,
        "hits": [hit | later | {"item": item | later | {"warnings": []}}], "timing_ms": timing | later,
    }  # fmt: skip
    with ScriptedServer([httpx2.Response(200, json=answer | later)]).client() as client:
        assert client.search("g", item_id="x").hits[0].item.id == "x"
    with pytest.raises(ValueError, match="Extra inputs are not permitted"):
        Filter.model_validate(later)


def test_readiness_is_not_retried_because_503_is_its_answer() -> None:
    server = ScriptedServer([httpx2.Response(503)])
    with server.client() as client, pytest.raises(ApiError):
        client.ready()
    assert server.slept == []
