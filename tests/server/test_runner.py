"""The server's process: start, start errors, listening, logging and shutdown."""

from __future__ import annotations

import logging
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import structlog

from server import app, runner
from server.embedding.session import ModelRefused
from server.gallery.galleries import Galleries
from server.index.exact import ExactIndex
from server.runner import Host, InferenceDied, bind, in_background, log_config, logging_in_thread
from server.settings import Settings
from server.storage.sql_store import SqlStore
from server.storage.startup_errors import DatabaseDamaged, DirectoryLocked
from tests.server.gallery.builders import DIMENSION, FINGERPRINT, new_items
from tests.server.image_files import crop
from vireid.client import ApiError, Client, Unreachable


def settings(folder: Path, model_dir: Path, **others: Any) -> Settings:
    values: dict[str, Any] = {
        "data_dir": folder,
        "model_dir": model_dir,
        "host": "127.0.0.1",
        "port": 0,
        "threads": 1,
        "device": "cpu",
    }
    return Settings(**(values | others))


def test_background_server_runs_only_within_the_block(tmp_path: Path, model_dir: Path) -> None:
    for _ in range(2):
        with in_background(settings(tmp_path, model_dir)) as url, Client(url) as client:
            assert client.ready().ready
        with Client(url) as client, pytest.raises(Unreachable):
            client.ready()


def test_start_errors_are_raised(tmp_path: Path, model_dir: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelRefused), in_background(settings(tmp_path / "a", tmp_path / "empty")):
        pass
    with (
        in_background(settings(tmp_path / "b", model_dir)),
        pytest.raises(DirectoryLocked),
        in_background(settings(tmp_path / "b", model_dir)),
    ):
        pass


def test_damage_found_while_loading_ends_the_server(tmp_path: Path, model_dir: Path) -> None:
    galleries = Galleries(SqlStore(f"sqlite:///{tmp_path}/vireid.db"), ExactIndex)
    galleries.catalog.create("g", model="m", fingerprint=FINGERPRINT, dimension=DIMENSION)
    galleries.writer.put("g", new_items(3), fingerprint=FINGERPRINT)
    galleries.close()
    with closing(sqlite3.connect(tmp_path / "vireid.db")) as database, database:
        database.execute("UPDATE vectors SET crc32 = 0")
    with (
        pytest.raises(DatabaseDamaged, match="is not the one that was stored"),
        in_background(settings(tmp_path, model_dir)),
    ):
        pass


@pytest.mark.parametrize(
    ("host", "start"), [("127.0.0.1", "http://127.0.0.1:"), ("0.0.0.0", "http://127.0.0.1:"), ("::1", "http://[::1]:")]
)
def test_url_is_reachable_from_this_machine(host: str, start: str, tmp_path: Path, model_dir: Path) -> None:
    try:
        bind(host, 0).close()
    except OSError:
        pytest.skip(f"this machine has no {host}")
    server = Host(settings(tmp_path, model_dir, host=host))
    assert server.url.startswith(start)
    server.close()


def test_listener_disables_nagles_algorithm() -> None:
    """Headers and body are two writes; with Nagle's algorithm the second would wait for the client's delayed ACK."""
    with bind("127.0.0.1", 0) as listener:
        listener.listen()
        client = socket.create_connection(listener.getsockname())
        accepted, _ = listener.accept()
        with client, accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_dead_inference_thread_ends_the_server(tmp_path: Path, model_dir: Path) -> None:
    def exit_thread(*_: object) -> None:
        raise SystemExit

    host = Host(settings(tmp_path, model_dir))
    started = Event()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(host.run, started.set)
        assert started.wait(60)
        embedder = host._app.state.service.models.get()._embedder
        with pytest.MonkeyPatch.context() as patch, Client(host.url, retries=0) as client:
            patch.setattr(type(embedder), "embed", exit_thread)
            with pytest.raises(ApiError) as refused:
                client.embed([crop(1)])
        assert refused.value.problem.status == 503
        with pytest.raises(InferenceDied, match="inference-0, which runs stub, has died"):
            running.result(60)


def test_log_is_written_by_a_thread_and_complete_at_the_end() -> None:
    writers: list[str] = []

    class Writer(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            writers.append(f"{threading.current_thread() is threading.main_thread()} {record.getMessage()}")

    root = logging.getLogger()
    before = root.handlers[:]
    root.handlers = [Writer()]
    try:
        with logging_in_thread():
            for number in range(100):
                logging.getLogger("server").warning("line %d", number)
        assert root.handlers[0].__class__ is Writer
    finally:
        root.handlers = before
    assert writers == [f"False line {number}" for number in range(100)]


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_unspecified_ipv6_address_listens_on_both_families(address: str, tmp_path: Path, model_dir: Path) -> None:
    try:
        bind("::1", 0).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    with in_background(settings(tmp_path, model_dir, host="::")) as url:
        port = int(url.rpartition(":")[2])
        with socket.create_connection((address, port)) as connection:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert connection.recv(12) == b"HTTP/1.1 200"


def test_unspecified_ipv6_address_falls_back_to_ipv4_without_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: False)
    with bind("::", 0) as bound:
        assert bound.family is socket.AF_INET


def test_port_in_use_is_refused_at_once() -> None:
    with bind("127.0.0.1", 0) as taken:
        taken.listen()
        with pytest.raises(OSError, match="in use"):
            bind("127.0.0.1", taken.getsockname()[1])


def test_connections_are_refused_until_health_can_be_answered(
    tmp_path: Path, model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opening, go_on = Event(), Event()
    open_service = app._open

    def slow_open(*arguments: Any) -> Any:
        opening.set()
        assert go_on.wait(60)
        return open_service(*arguments)

    monkeypatch.setattr(app, "_open", slow_open)
    host, started = Host(settings(tmp_path, model_dir)), Event()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(host.run, started.set)
        assert opening.wait(60)
        with Client(host.url, retries=0) as client, pytest.raises(Unreachable):
            client.ready()
        go_on.set()
        assert started.wait(60)
        with urllib.request.urlopen(f"{host.url}/healthz", timeout=60) as answer:
            assert answer.status == 200
        host.stop()
        running.result(60)


def test_idle_connections_are_kept_for_the_configured_time(tmp_path: Path, model_dir: Path) -> None:
    with (
        in_background(settings(tmp_path, model_dir, keep_alive_s=1)) as url,
        socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as connection,
    ):
        connection.settimeout(10)
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(65536)
        assert connection.recv(1) == b"", "closed after a second"
    assert Settings().keep_alive_s > 60, "the idle timeout of common proxies"


_STOP_WITH_STALLED_CLIENT = """
import os, signal, socket, sys, threading, time, urllib.request
from pathlib import Path
from server import runner
from server.embedding.registry import Models
from server.settings import Settings
runner._GRACE_S, runner._STOP_S = 1, 2
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
if sys.argv[3] == "hang":
    Models.close = lambda self: time.sleep(60)
folder, models = map(Path, sys.argv[1:3])
host = runner.Host(Settings(data_dir=folder, model_dir=models, port=0, threads=1, device="cpu"))
def stall():
    urllib.request.urlopen(host.url + "/healthz").read()  # the server handles signals from now on
    connection = socket.create_connection(("127.0.0.1", int(host.url.rpartition(":")[2])))
    head = b"POST /v1/embeddings HTTP/1.1\\r\\nHost: 127.0.0.1\\r\\nContent-Length: 100000\\r\\n"
    connection.sendall(head + b"Content-Type: multipart/form-data; boundary=B\\r\\n\\r\\n--B\\r\\n")
    time.sleep(0.5)
    print(time.monotonic(), flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    print(connection.recv(12).decode(), flush=True)
    time.sleep(60)
host.run(lambda: threading.Thread(target=stall, daemon=True).start())
"""


@pytest.mark.parametrize(("case", "code"), [("stalled upload", 0), ("hang", 1)])
def test_sigterm_ends_the_process_whatever_clients_do(case: str, code: int, tmp_path: Path, model_dir: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _STOP_WITH_STALLED_CLIENT, str(tmp_path), str(model_dir), case],
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == code, done.stderr
    stopped, _, answer = done.stdout.decode().partition("\n")
    assert time.monotonic() - float(stopped) < 8
    assert answer == "HTTP/1.1 503\n"
    assert runner._STOP_S < 25


def test_ignored_variables_are_logged_once(
    tmp_path: Path, model_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("VIREID_SERVICE_HOST", "10.0.0.12")
    monkeypatch.setenv("VIREID_KEY", "secret")
    with caplog.at_level(logging.INFO, logger="server"), in_background(settings(tmp_path, model_dir)):
        pass
    lines = [line for line in caplog.messages if "not settings" in line]
    assert len(lines) == 1
    assert "VIREID_KEY, VIREID_SERVICE_HOST" in lines[0]
    assert "secret" not in caplog.text


@pytest.mark.parametrize("human_readable", [True, False], ids=["terminal", "file"])
def test_logs_hold_neither_local_variables_nor_api_keys(human_readable: bool) -> None:
    secret, local_variable = "vireid_" + "s" * 43, "hunter" + "2"
    options = {name: value for name, value in log_config(human_readable)["formatters"]["lines"].items() if name != "()"}
    try:
        raise RuntimeError(f"bad header: {secret}")
    except RuntimeError:
        record = logging.LogRecord("n", logging.ERROR, "p", 1, "failed for %s", (secret,), sys.exc_info())
    record.header = secret
    logged = structlog.stdlib.ProcessorFormatter(**options).format(record)
    assert "RuntimeError: bad header: vireid_…" in logged
    assert local_variable not in logged
    assert secret not in logged
