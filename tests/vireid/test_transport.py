"""What the client makes of refusals, busy servers and strangers; the server is a function here."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vireid.client import ApiError, Client, ClientError, ItemFields, Limits, UnexpectedAnswer, Unreachable

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
    "type": "urn:vireid:problem:overloaded",
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
    "a_field_of_a_later_server": 1,
}

Handler = Callable[[httpx2.Request], httpx2.Response]


def busy(wait: str | None = "2") -> httpx2.Response:
    return httpx2.Response(429, json=PROBLEM, headers={} if wait is None else {"Retry-After": wait})


class Told:
    """A server that gives the answers it was told to, one after the other, and keeps what it was sent."""

    def __init__(self, answers: Sequence[httpx2.Response]) -> None:
        self.answers: Iterator[httpx2.Response] = iter(answers)
        self.requests: list[httpx2.Request] = []
        self.slept: list[float] = []

    def client(self, retries: int = 5) -> Client:
        transport = httpx2.MockTransport(self.answer)
        return Client(key="secret\n", retries=retries, transport=transport, sleep=self.slept.append)

    def answer(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        return next(self.answers)


def answered_by(handler: Handler) -> Client:
    return Client(transport=httpx2.MockTransport(handler))


def test_a_busy_server_is_asked_again_after_the_time_it_names_with_the_same_body() -> None:
    server = Told([httpx2.Response(200, json=LIMITS), busy("2"), busy("7"), httpx2.Response(200, json={"items": []})])
    with server.client() as client:
        client.add_items("g", [(b"picture", ItemFields(id="x"))])
    assert server.slept == [2.0, 7.0]
    bodies = {request.content for request in server.requests[1:]}
    assert len(bodies) == 1
    assert b"picture" in bodies.pop()


def test_asking_again_ends_after_so_many_retries_and_tells_what_the_server_said() -> None:
    server = Told([busy() for _ in range(4)])
    with server.client(retries=3) as client, pytest.raises(ApiError, match="429 Too many images in flight") as raised:
        client.limits()
    assert server.slept == [2.0, 2.0, 2.0]
    assert (raised.value.status, raised.value.retry_after) == (429, 2.0)
    assert raised.value.problem.request_id == "abc"


@pytest.mark.parametrize("wait", [None, "3600", "Wed, 21 Oct 2026 07:28:00 GMT"])
def test_a_429_that_waiting_cannot_help_is_not_waited_for(wait: str | None) -> None:
    server = Told([busy(wait)])
    with server.client() as client, pytest.raises(ApiError):
        client.limits()
    assert server.slept == []


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 415, 422, 500, 503, 507])
def test_every_other_refusal_is_raised_at_once_with_the_problem_of_the_server(status: int) -> None:
    body = PROBLEM | {"status": status, "title": "No", "errors": [{"field": "query.k", "detail": "must be at most 9"}]}
    server = Told([httpx2.Response(status, json=body, headers={"Retry-After": "1"})])
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
def test_what_stands_before_the_server_is_told_in_one_line(answer: httpx2.Response, words: str) -> None:
    with answered_by(lambda _: answer) as client, pytest.raises(ApiError) as raised:
        client.ready()
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


def test_something_else_than_a_vireid_server_is_told_apart() -> None:
    with answered_by(lambda _: httpx2.Response(200, text="<html>")) as client, pytest.raises(UnexpectedAnswer):
        client.limits()


def test_no_answer_names_the_address() -> None:
    def refuse(_: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError("Connection refused")

    with answered_by(refuse) as client, pytest.raises(Unreachable, match=r"127\.0\.0\.1:8000: Connection refused"):
        client.limits()


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://x", "http://[::1", ""])
def test_an_address_that_is_no_url_is_an_error_of_the_client(url: str) -> None:
    with pytest.raises(ClientError), Client(url) as client:
        client.limits()


def test_the_key_goes_along_and_fields_that_are_not_known_yet_are_passed_over() -> None:
    server = Told([httpx2.Response(200, json=GALLERY)])
    with server.client() as client:
        assert client.gallery("g").name == "g"
    assert server.requests[0].headers["authorization"] == "Bearer secret"


def test_pages_are_followed_to_the_end() -> None:
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
def test_no_name_can_make_a_request_for_another_resource(name: str) -> None:
    with answered_by(lambda _: httpx2.Response(204)) as client, pytest.raises(ClientError, match="no name or id"):
        client.delete_item("g", name)


def test_slashes_and_question_marks_in_a_name_are_no_path() -> None:
    server = Told([httpx2.Response(204)])
    with server.client() as client:
        client.delete_gallery("a/../b?c")
    assert server.requests[0].url.raw_path == b"/v1/galleries/a%2F..%2Fb%3Fc"


def test_no_file_name_leaves_the_machine(tmp_path: Path) -> None:
    secret = tmp_path / "john-doe.png"
    secret.write_bytes(b"picture")
    server = Told([httpx2.Response(200, json=LIMITS), httpx2.Response(200, json={"items": []})])
    with server.client() as client:
        client.add_items("g", [(secret, ItemFields(id="x"))])
    assert b"john" not in server.requests[1].content


def test_a_request_in_which_every_image_fails_gives_results_like_any_other() -> None:
    faults = [{"field": "images[0]", "detail": "Empty."}, {"field": "items[1].id", "detail": "is too long"}]
    body = PROBLEM | {"status": 422, "title": "Uploads failed", "errors": faults}
    added = {"index": 0, "id": "a", "status": "added", "modality": "visible", "error": None}
    good = {"items": [added | {"index": index} for index in range(3)]}
    answers = [httpx2.Response(200, json=LIMITS), httpx2.Response(201, json=good), httpx2.Response(422, json=body)]
    with Told(answers).client() as client:
        results = client.add_items("g", [(b"x", ItemFields())] * 5)
    assert [(result.index, result.status) for result in results] == [
        (0, "added"), (1, "added"), (2, "added"), (3, "failed"), (4, "failed"),
    ]  # fmt: skip
    assert [result.error.reason for result in results if result.error] == ["Empty.", "is too long"]


def test_a_request_that_is_refused_as_a_whole_raises() -> None:
    body = PROBLEM | {"status": 413, "title": "Body too large", "errors": []}
    server = Told([httpx2.Response(200, json=LIMITS), httpx2.Response(413, json=body)])
    with server.client() as client, pytest.raises(ApiError, match="413"):
        client.add_items("g", [(b"x", ItemFields())])


def test_an_image_that_cannot_be_embedded_is_named_by_its_place_among_all() -> None:
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
def test_batches_hold_everything_in_order_within_the_limits_and_are_not_smaller_than_needed(
    sizes: list[int], at_most: int
) -> None:
    limits = Limits.model_validate(LIMITS)
    batches = list(limits.batches(sizes, lambda size: size, at_most))
    assert [size for batch in batches for size in batch] == sizes
    for batch in batches:
        assert 1 <= len(batch) <= at_most
        assert sum(batch) <= limits.max_body_bytes
    for batch, following in pairwise(batches):
        would_be = sum(batch) + following[0] + 1024 * (len(batch) + 1)
        assert len(batch) == at_most or would_be > limits.max_body_bytes


def test_a_search_needs_exactly_one_kind_of_query() -> None:
    with answered_by(lambda _: httpx2.Response(500)) as client:
        for query in ({}, {"images": [b"x"], "item_id": "y"}):
            with pytest.raises(ValueError, match="exactly one"):
                client.search("g", **query)  # type: ignore[arg-type]


def test_changes_are_sent_as_they_were_given_and_times_need_a_zone() -> None:
    item: dict[str, object] = {
        "id": "x",
        "identity": None,
        "modality": "visible",
        "camera": "c",
        "captured_at": None,
        "attributes": {},
    }
    server = Told([httpx2.Response(200, json=item)])
    with server.client() as client:
        client.update_item("g", "x", identity=None, camera="c")
        with pytest.raises(ValueError, match="timezone"):
            client.update_item("g", "x", captured_at=datetime(2026, 1, 1))
    assert json.loads(server.requests[0].content) == {"identity": None, "camera": "c"}
