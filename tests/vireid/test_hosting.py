"""A server in a thread: there while it is wanted, gone afterwards, and clear about why it does not start."""

from __future__ import annotations

import logging
import socket
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from server.embedding.session import ModelRefused
from server.gallery.flat import FaissFlat
from server.gallery.refused import DatabaseDamaged, DirectoryLocked
from server.gallery.service import Galleries
from server.gallery.store import SqlStore
from server.settings import Settings
from tests.server.gallery.making import DIMENSION, FINGERPRINT, new_items
from tests.server.pictures import crop
from vireid.client import ApiError, Client, Unreachable
from vireid.hosting import Host, InferenceDied, in_background, listen, logging_aside


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


def test_the_server_is_there_in_the_block_and_gone_after_it(tmp_path: Path, model_dir: Path) -> None:
    for _ in range(2):
        with in_background(settings(tmp_path, model_dir)) as url, Client(url) as client:
            assert client.ready().ready
        with Client(url) as client, pytest.raises(Unreachable):
            client.ready()


def test_what_keeps_it_from_starting_is_raised(tmp_path: Path, model_dir: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelRefused), in_background(settings(tmp_path / "a", tmp_path / "empty")):
        pass
    with (
        in_background(settings(tmp_path / "b", model_dir)),
        pytest.raises(DirectoryLocked),
        in_background(settings(tmp_path / "b", model_dir)),
    ):
        pass


def test_damage_that_is_found_while_it_loads_ends_it(tmp_path: Path, model_dir: Path) -> None:
    galleries = Galleries(SqlStore(f"sqlite:///{tmp_path}/vireid.db"), FaissFlat)
    galleries.create("g", model="m", fingerprint=FINGERPRINT, dimension=DIMENSION)
    galleries.put("g", new_items(3), fingerprint=FINGERPRINT)
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
def test_the_address_can_be_opened_on_this_machine(host: str, start: str, tmp_path: Path, model_dir: Path) -> None:
    try:
        listen(host, 0).close()
    except OSError:
        pytest.skip(f"this machine has no {host}")
    server = Host(settings(tmp_path, model_dir, host=host))
    assert server.url.startswith(start)
    server.close()


def test_answers_do_not_wait_for_acknowledgements() -> None:
    """Headers and body are two writes: with Nagle's algorithm the second waits for the client's delayed ACK."""
    with listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_lost_inference_thread_ends_the_server(tmp_path: Path, model_dir: Path) -> None:
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
        with pytest.raises(InferenceDied, match="inference-0, which runs standin, has died"):
            running.result(60)


def test_the_log_is_written_by_a_thread_and_whole_when_the_server_ends() -> None:
    writers: list[str] = []

    class Writer(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            writers.append(f"{threading.current_thread() is threading.main_thread()} {record.getMessage()}")

    root = logging.getLogger()
    before = root.handlers[:]
    root.handlers = [Writer()]
    try:
        with logging_aside():
            for number in range(100):
                logging.getLogger("server").warning("line %d", number)
        assert root.handlers[0].__class__ is Writer
    finally:
        root.handlers = before
    assert writers == [f"False line {number}" for number in range(100)]
