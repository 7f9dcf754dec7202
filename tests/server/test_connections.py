"""Slow and silent clients, too many connections, and bodies that fill the memory, against a real server."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from server.runner import in_background
from server.settings import Settings
from tests.server.image_files import crop
from vireid.client import Client

SOON = {"header_timeout_s": 0.2, "body_timeout_s": 0.2}
LATE = {"header_timeout_s": 3600, "body_timeout_s": 3600}
REQUEST = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n"
UPLOAD = b"POST /v1/embeddings HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100000\r\n\r\n"
JSON_BODY = (
    b"POST /v1/galleries HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100000\r\nContent-Type: application/json"
)

Serve = Callable[..., Any]


@pytest.fixture
def serve(tmp_path: Path, model_dir: Path) -> Serve:
    @contextmanager
    def run(**settings: Any) -> Iterator[str]:
        chosen = {"data_dir": tmp_path / "data", "model_dir": model_dir, "device": "cpu", "threads": 1, "port": 0}
        with in_background(Settings(**{**chosen, **settings})) as url:
            yield url

    return run


def connect(url: str) -> socket.socket:
    address = urlsplit(url)
    connection = socket.create_connection((address.hostname, address.port), timeout=60)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def rest(connection: socket.socket) -> bytes:
    """Return all bytes until the server closes the connection."""
    received = b""
    try:
        while block := connection.recv(65_536):
            received += block
    except ConnectionResetError:
        pass
    return received


def refused(response: bytes, status: int, kind: str) -> dict[str, Any]:
    head, _, body = response.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), response
    assert b"application/problem+json" in head
    problem: dict[str, Any] = json.loads(body)
    assert problem["type"].endswith(kind)
    return problem


def drip(connection: socket.socket, data: bytes) -> bytes:
    """Send a byte at a time until the server closes the connection; returns its response."""
    closed = threading.Event()

    def send() -> None:
        for position in range(len(data)):
            if closed.wait(0.02):
                return
            try:
                connection.sendall(data[position : position + 1])
            except OSError:
                return

    thread = threading.Thread(target=send)
    thread.start()
    response = rest(connection)
    closed.set()
    thread.join()
    return response


def test_header_that_arrives_byte_by_byte_is_refused_and_others_are_served(serve: Serve) -> None:
    with serve(**SOON) as url, connect(url) as slow, Client(url) as client:
        problem = refused(drip(slow, REQUEST + b"X: " + b"x" * 10_000), 408, "request-too-slow")
        assert problem["detail"] == "The header did not arrive within 0.2 s."
        assert client.ready().ready


def test_body_that_arrives_byte_by_byte_is_refused_and_others_are_served(serve: Serve) -> None:
    with serve(**SOON) as url, connect(url) as slow, Client(url) as client:
        slow.sendall(JSON_BODY + b"\r\n\r\n")
        refused(drip(slow, b" " * 10_000), 408, "request-too-slow")
        assert client.embed([crop(1)]).shape[0] == 1


@pytest.mark.parametrize("sent", [b"", b"\r\n", REQUEST + b"\r\n"])
def test_silent_connection_is_closed(serve: Serve, sent: bytes) -> None:
    with serve(**SOON, keep_alive_s=1) as url, connect(url) as silent:
        silent.sendall(sent)
        received = rest(silent)
        assert received.count(b"HTTP/1.1 200 OK") == sent.count(b"GET")


def test_body_after_the_response_cannot_hold_the_connection(serve: Serve) -> None:
    with serve(**SOON, auth="required") as url, connect(url) as slow:
        slow.sendall(UPLOAD)
        response = drip(slow, b"x" * 10_000)
        assert response.startswith(b"HTTP/1.1 401 ")
        assert response.count(b"HTTP/1.1 ") == 1


def test_slow_server_is_not_blamed_on_the_client(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request whose answer takes longer than all timeouts is served."""
    asked, answer = threading.Event(), threading.Event()

    def slow_problems(_: object) -> list[str]:
        asked.set()
        assert answer.wait(60)
        return []

    with serve(**SOON) as url, connect(url) as waiting, connect(url) as other:
        monkeypatch.setattr("server.api.app_state.AppState.problems", slow_problems)
        waiting.sendall(b"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        assert asked.wait(60)
        assert rest(other) == b""  # it was silent, so the server has checked all connections
        answer.set()
        assert rest(waiting).startswith(b"HTTP/1.1 200 OK")


def test_header_has_a_largest_size(serve: Serve) -> None:
    with serve(**LATE) as url, connect(url) as large:
        large.sendall(REQUEST + b"X: " + b"x" * 70_000)
        refused(rest(large), 431, "header-too-large")


def test_client_that_reads_nothing_is_disconnected(serve: Serve) -> None:
    with serve(**SOON) as url, connect(url) as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        request = b"GET /openapi.json HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            deaf.sendall(request * 1_000_000)


def test_silent_connections_give_way_to_new_ones(serve: Serve) -> None:
    with serve(**LATE, max_connections=8) as url, ExitStack() as stack:
        silent = [stack.enter_context(connect(url)) for _ in range(8)]
        with connect(url) as new:
            new.sendall(REQUEST + b"Connection: close\r\n\r\n")
            assert rest(new).startswith(b"HTTP/1.1 200 OK")
        assert rest(silent[0]) == b""


def test_connection_that_was_served_outlives_those_that_send_nothing(serve: Serve) -> None:
    with serve(**LATE, max_connections=8) as url, connect(url) as known, ExitStack() as stack:
        for _ in range(2):
            known.sendall(REQUEST + b"\r\n")
            assert known.recv(65_536).startswith(b"HTTP/1.1 200 OK")
            silent = [stack.enter_context(connect(url)) for _ in range(20)]
            assert all(rest(one) == b"" for one in silent[:13])


def test_slow_uploads_give_way_to_new_connections(serve: Serve) -> None:
    with serve(**LATE, max_connections=8) as url, ExitStack() as stack:
        slow = [stack.enter_context(connect(url)) for _ in range(8)]
        for connection in slow:
            connection.sendall(JSON_BODY + b"\r\nExpect: 100-continue\r\n\r\n")
            assert connection.recv(100).startswith(b"HTTP/1.1 100")  # the server reads the body
        with connect(url) as new:
            new.sendall(REQUEST + b"Connection: close\r\n\r\n")
            assert rest(new).startswith(b"HTTP/1.1 200 OK")
        refused(rest(slow[0]), 503, "too-many-connections")


def test_bodies_in_memory_have_a_limit_together(serve: Serve) -> None:
    with serve(**LATE, max_body_bytes=100_000, max_body_memory=150_000) as url, ExitStack() as stack:
        first, second = (stack.enter_context(connect(url)) for _ in range(2))
        first.sendall(JSON_BODY + b"\r\nExpect: 100-continue\r\n\r\n")
        assert first.recv(100).startswith(b"HTTP/1.1 100")
        first.sendall(b" " * 90_000)
        second.sendall(JSON_BODY + b"\r\nExpect: 100-continue\r\n\r\n")
        assert second.recv(100).startswith(b"HTTP/1.1 100")
        second.sendall(b" " * 90_000)
        first.settimeout(0.2)
        while True:  # whichever body was read later is refused, and the other continues
            try:
                refused_first = first.recv(65_536)
            except TimeoutError:
                refused_first = b""
            second.settimeout(0.2)
            try:
                refused_second = second.recv(65_536)
            except TimeoutError:
                refused_second = b""
            if refused_first or refused_second:
                break
        assert bool(refused_first) != bool(refused_second)
        assert b"/problems/body-memory-full" in refused_first + refused_second
        other = second if refused_first else first
        other.settimeout(60)
        other.sendall(b" " * 10_000)
        assert b"invalid-request" in other.recv(65_536)


def test_address_of_a_client_is_that_of_the_header_only_behind_a_trusted_proxy(serve: Serve) -> None:
    for trusted, status in (((), 429), (("127.0.0.1",), 401)):
        with serve(auth="required", failed_auth_per_minute=1, trusted_proxies=trusted) as url:
            for number in range(2):
                with connect(url) as one:
                    one.sendall(
                        b"GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
                        b"X-Forwarded-For: 203.0.113.%d\r\n\r\n" % number
                    )
                    response = rest(one)
            assert response.startswith(b"HTTP/1.1 %d " % status)
