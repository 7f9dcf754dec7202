"""The server in this process: one uvicorn on one socket, in the foreground or in a thread.

Importing this imports the server; only commands that start one do so.
"""

from __future__ import annotations

import asyncio
import gc
import ipaddress
import logging
import queue
import socket
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from logging.handlers import QueueHandler, QueueListener
from typing import Any

import structlog
import uvicorn

from server.app import create_app
from server.embedding.batcher import InferenceDied
from server.embedding.session import ModelRefused
from server.errors import ServiceError
from server.gallery.refused import StartError
from server.settings import Settings

__all__ = ["START_ERRORS", "Host", "InferenceDied", "in_background", "listen", "log_config", "logging_aside"]

START_ERRORS = (StartError, ModelRefused, ServiceError, OSError)
"""What a server over wrong data, a wrong model or a wrong address fails to start with."""

_SWITCH_S = 0.0005  # how long a request may wait for a thread of an import at each of its steps; Python's own is 0.005
_GRACE_S = 30  # for requests in work when the server is told to stop
_GARBAGE = 10_000  # objects after which Python looks for what is not needed any more; its own is 700, a few requests
_LINES_S = 0.1  # how long lines of the log may gather


class Host:
    """A server that is about to run; it holds its port from now on.

    Raises:
        OSError: the address cannot be listened on.
    """

    def __init__(self, settings: Settings) -> None:
        self._app = create_app(settings)
        self._listener = listen(settings.host, settings.port)
        self._config = uvicorn.Config(
            self._app,
            lifespan="off",
            log_config=None,
            access_log=False,  # the app logs each request itself
            server_header=False,
            timeout_graceful_shutdown=_GRACE_S,
        )
        self._server = _Server(self._config, lambda: self._app.state.service.jobs.stop())

    @property
    def url(self) -> str:
        """Where a program of this machine reaches it."""
        host, port = self._listener.getsockname()[:2]
        address = ipaddress.ip_address(host)
        if address.is_unspecified:
            address = ipaddress.ip_address("127.0.0.1" if address.version == 4 else "::1")
        return f"http://{f'[{address}]' if address.version == 6 else address}:{port}"

    def run(self, started: Callable[[], None]) -> None:
        """Serve until told to stop; ``started`` is called once it listens, while galleries are still being loaded.

        Raises:
            START_ERRORS: the data or the models cannot be served.
            InferenceDied: a device was lost while serving; whoever keeps the server alive should start it again.
        """
        sys.setswitchinterval(_SWITCH_S)
        with asyncio.Runner(loop_factory=self._config.get_loop_factory()) as runner:  # uvloop, where it is installed
            runner.run(self._serve(started))

    async def _serve(self, started: Callable[[], None]) -> None:
        # Opened here and not by uvicorn, which would log a traceback instead of raising.
        with closing(self):
            async with self._app.router.lifespan_context(self._app):
                fatal = (self.loading, self._app.state.service.models.batcher.died)
                for future in fatal:
                    future.add_done_callback(lambda done: self.stop() if done.exception() else None)
                started()
                gc.collect()
                gc.freeze()  # what is there now stays: to look through it again and again took a tenth of the time
                gc.set_threshold(_GARBAGE)
                await self._server.serve(sockets=[self._listener])
                for future in fatal:
                    if future.done():
                        future.result()

    @property
    def loading(self) -> Future[None]:
        """Done when every gallery is loaded and the store is checked; there once ``run`` has called ``started``."""
        loading: Future[None] = self._app.state.service.galleries.loading
        return loading

    def stop(self) -> None:
        """Let ``run`` end. Any thread may call it."""
        self._server.should_exit = True

    def close(self) -> None:
        """Give the port back; ``run`` does so itself."""
        self._listener.close()


class _Server(uvicorn.Server):
    """Calls ``leave``, which ends the streams of jobs' events, before it waits for every connection to close."""

    def __init__(self, config: uvicorn.Config, leave: Callable[[], None]) -> None:
        super().__init__(config)
        self._leave = leave

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._leave()
        await super().shutdown(sockets)


@contextmanager
def in_background(settings: Settings) -> Iterator[str]:
    """A server in a thread of this process, ready, and gone with the block; gives its URL.

    Raises:
        START_ERRORS: it does not start.
    """
    host = Host(settings)
    started: Future[None] = Future()

    def loaded(done: Future[None]) -> None:
        if not done.exception():
            started.set_result(None)

    with ThreadPoolExecutor(1, thread_name_prefix="server") as pool:
        running = pool.submit(host.run, lambda: host.loading.add_done_callback(loaded))
        wait((running, started), return_when=FIRST_COMPLETED)
        if not started.done():
            running.result()
        try:
            yield host.url
        finally:
            host.stop()
            running.result()


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one.

    Raises:
        OSError: the address is taken, or is none of this machine.
    """
    bare = host.strip("[]")
    family = socket.AF_INET6 if ":" in bare else socket.AF_INET
    listener = socket.create_server((bare, port), family=family, backlog=2048)
    # asyncio sets this only on sockets that name their protocol; without it every answer waits 40 ms for an ACK.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


@contextmanager
def logging_aside() -> Iterator[None]:
    """Let a thread write the log: within a request, each line would hand the interpreter to others and wait for it."""
    root, lines = logging.getLogger(), queue.SimpleQueue[logging.LogRecord]()
    writers = root.handlers[:]
    listener = _Writer(lines, *writers)
    root.handlers = [_Aside(lines)]
    listener.start()
    try:
        yield
    finally:
        listener.stop()
        root.handlers = writers


class _Writer(QueueListener):
    """Writes what has gathered: a line at a time, it would ask for the interpreter within every request."""

    def __init__(self, lines: queue.SimpleQueue[logging.LogRecord], *writers: logging.Handler) -> None:
        super().__init__(lines, *writers)
        self._lines = lines

    def dequeue(self, block: bool) -> logging.LogRecord:
        if self._lines.empty():
            time.sleep(_LINES_S)
        return super().dequeue(block)


class _Aside(QueueHandler):
    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        return record  # it stays in this process, and the writer wants it whole


def log_config(lines_for_people: bool) -> dict[str, Any]:
    """Configuration of ``logging``: all that the server and uvicorn say, to stderr, for people or as lines of JSON."""
    stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)
    before = [structlog.stdlib.add_log_level, structlog.stdlib.ExtraAdder(), stamp]
    after: list[Any] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if lines_for_people:
        after.append(structlog.dev.ConsoleRenderer())
    else:
        after += [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    formatter = {"()": structlog.stdlib.ProcessorFormatter, "foreign_pre_chain": before, "processors": after}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"lines": formatter},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "lines"}},
        "root": {"handlers": ["stderr"], "level": "WARNING"},
        "loggers": {"server": {"level": "INFO"}},
    }
