"""Load generation with wrk: its output and its requests."""

from __future__ import annotations

import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from benchmarks.harness import wrk

OUTPUT = """Running 2s test @ http://127.0.0.1:9/
  1 threads and 32 connections
Requests/sec:     99.00
wrk {"requests": 400, "seconds": 2.0, "failed": 0, "refused": 0, "p50_ms": 1.5, "p95_ms": 3.25, "p99_ms": 9.0}
"""


def test_summary_line_is_parsed() -> None:
    assert wrk.parse(OUTPUT) == wrk.Load(rate=200.0, p50_ms=1.5, p95_ms=3.25, p99_ms=9.0)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('"failed": 3', "3 with nothing"),
        ('"refused": 5', "5 were answered with an error"),
    ],
)
def test_failed_or_refused_requests_raise(line: str, words: str) -> None:
    name = line.split(":")[0]
    with pytest.raises(RuntimeError, match=words):
        wrk.parse(OUTPUT.replace(f"{name}: 0", line))


def test_missing_responses_or_summary_raise() -> None:
    with pytest.raises(RuntimeError, match="of 0 requests"):
        wrk.parse(OUTPUT.replace('"requests": 400', '"requests": 0'))
    with pytest.raises(RuntimeError, match="no summary"):
        wrk.parse("Running 2s test")


def test_missing_wrk_error_names_the_package_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    with pytest.raises(wrk.WrkMissing, match="apt-get install wrk"):
        wrk.post("http://127.0.0.1:9/", b"", {}, 1, 1)


@pytest.mark.skipif(shutil.which("wrk") is None, reason="needs wrk")
def test_body_and_headers_are_sent_unchanged() -> None:
    seen: set[tuple[str, bytes]] = set()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            seen.add((self.headers["Content-Type"], self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.handle_error = lambda *_: None  # type: ignore[method-assign]  # wrk hangs up when its time is over
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            body = b"\x00\r\n%'\xff"
            load = wrk.post(f"http://127.0.0.1:{server.server_port}/", body, {"Content-Type": "image/jpeg; a=b"}, 2, 1)
        finally:
            server.shutdown()
            thread.join()
    assert load.rate > 0
    assert 0 < load.p50_ms <= load.p95_ms <= load.p99_ms
    assert seen == {("image/jpeg; a=b", body)}
