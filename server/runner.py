"""Runs the server in this process, in the foreground or in a thread."""

from __future__ import annotations

import asyncio
import gc
import ipaddress
import logging
import os
import queue
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from functools import partial
from logging.handlers import QueueHandler, QueueListener
from typing import Any, cast

import structlog
import uvicorn

from server.api.connections import Connection, ConnectionLimits
from server.app import create_app
from server.domain.errors import ServiceError, StartupError
from server.embedding.batcher import InferenceDied
from server.embedding.session import ModelRefused
from server.environment import unknown_names
from server.settings import Settings

__all__ = ["START_ERRORS", "Host", "InferenceDied", "bind", "in_background", "log_config", "logging_in_thread"]

START_ERRORS = (StartupError, ModelRefused, ServiceError, OSError)
"""Errors that prevent a start: invalid data, an invalid model or an unusable address."""

_SWITCH_S = 0.0005  # thread switch interval; Python's default, 0.005 s, delays each step of a request beside an import
_GRACE_S = 15  # for requests that are running when the server is stopped
_RESPONSE_S = 0.2  # for the responses of requests that were cancelled after the grace period
_STOP_S = 23  # after which a stop is forced; container runtimes kill the process after 30 s
_BACKLOG = 2048
_TICKS_PER_CHECK = 5  # of the connections; a tick is 0.1 s
_GARBAGE = 10_000  # allocations per garbage collection; Python's default, 700, is reached by a few requests
_LINES_S = 0.1  # for which log lines are collected before they are written

_SECRET = re.compile(r"vireid_[A-Za-z0-9_-]{43}")  # an API key

log = logging.getLogger(__name__)


class Host:
    """A server that is bound to its port and ready to run.

    Raises:
        OSError: the address cannot be bound.
    """

    def __init__(self, settings: Settings) -> None:
        self._app = create_app(settings)
        self._stopping = False
        self._listener = bind(settings.host, settings.port)
        self._config = uvicorn.Config(
            self._app,
            http=cast("type[asyncio.Protocol]", partial(Connection, limits=_connection_limits(settings))),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,  # the app logs each request itself
            server_header=False,
            proxy_headers=bool(settings.trusted_proxies),
            forwarded_allow_ips=list(settings.trusted_proxies),
            timeout_keep_alive=settings.keep_alive_s,
            timeout_graceful_shutdown=_GRACE_S,
        )
        self._server = _Server(self._config, self._before_shutdown)

    @property
    def url(self) -> str:
        """The URL by which programs on this machine reach the server."""
        host, port = self._listener.getsockname()[:2]
        address = ipaddress.ip_address(host)
        if address.is_unspecified:
            address = ipaddress.ip_address("127.0.0.1" if address.version == 4 else "::1")
        return f"http://{f'[{address}]' if address.version == 6 else address}:{port}"

    def run(self, started: Callable[[], None]) -> None:
        """Serve until stopped. Connections are refused until the models are loaded; then ``started`` is called.

        Galleries are still loading then, and /readyz is 503.

        Raises:
            START_ERRORS: the data or the models are invalid.
            InferenceDied: an inference device was lost; a supervisor should restart the process.
        """
        sys.setswitchinterval(_SWITCH_S)
        if ignored := unknown_names(os.environ, Settings.model_fields):
            log.info("ignored environment variables that are not settings: %s", ", ".join(ignored))
        with asyncio.Runner(loop_factory=self._config.get_loop_factory()) as runner:  # uvloop, where it is installed
            runner.run(self._serve(started))

    async def _serve(self, started: Callable[[], None]) -> None:
        # Opened here and not by uvicorn, which would log a traceback instead of raising the error.
        with closing(self):
            async with self._app.router.lifespan_context(self._app):
                fatal = (self.loading, self._app.state.service.models.batcher.died)
                for future in fatal:
                    future.add_done_callback(lambda done: self.stop() if done.exception() else None)
                self._listener.listen(_BACKLOG)
                try:
                    started()
                    gc.collect()
                    gc.freeze()  # scanning the objects that exist now again and again took 10 % of the time
                    gc.set_threshold(_GARBAGE)
                    await self._server.serve(sockets=[self._listener])
                finally:
                    self._limit_stop()  # a signal may have come before the server handled signals
                for future in fatal:
                    if future.done():
                        future.result()

    def _before_shutdown(self) -> None:
        """End the streams of job events, which would keep their connections open."""
        self._limit_stop()
        self._app.state.service.jobs.stop()

    def _limit_stop(self) -> None:
        """End the process after ``_STOP_S``, whatever clients and native code do."""
        if not self._stopping and threading.current_thread() is threading.main_thread():  # not within another program
            self._stopping = True
            deadline = threading.Timer(_STOP_S, _force_exit)
            deadline.daemon = True
            deadline.start()

    @property
    def loading(self) -> Future[None]:
        """Completes when all galleries are loaded and the store is checked; valid once ``started`` was called."""
        loading: Future[None] = self._app.state.service.galleries.loader.loading
        return loading

    def stop(self) -> None:
        """Make ``run`` return; callable from any thread."""
        self._server.should_exit = True

    def close(self) -> None:
        """Release the port. ``run`` does so itself."""
        self._listener.close()


def _connection_limits(settings: Settings) -> ConnectionLimits:
    return ConnectionLimits(settings.max_connections, settings.header_timeout_s, settings.body_timeout_s)


class _Server(uvicorn.Server):
    """A uvicorn server that checks its connections, and calls ``before_shutdown`` before it waits for them."""

    def __init__(self, config: uvicorn.Config, before_shutdown: Callable[[], None]) -> None:
        super().__init__(config)
        self._before_shutdown = before_shutdown

    async def on_tick(self, counter: int) -> bool:
        if counter % _TICKS_PER_CHECK == 0:
            now = time.monotonic()
            for connection in list(self.server_state.connections):
                if isinstance(connection, Connection):
                    connection.check(now)
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._before_shutdown()
        await super().shutdown(sockets)
        await asyncio.sleep(_RESPONSE_S)


@contextmanager
def in_background(settings: Settings) -> Iterator[str]:
    """Run a server in a thread for the duration of the block; yields its URL once all galleries are loaded.

    Raises:
        START_ERRORS: the server does not start.
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


def _force_exit() -> None:
    """End the process. Committed writes survive this like a crash."""
    log.error("the stop takes longer than %d s and is forced", _STOP_S)
    time.sleep(2 * _LINES_S)  # lets the log be written
    os._exit(1)


def bind(host: str, port: int) -> socket.socket:
    """Return a bound socket that does not listen yet; port 0 selects a free port.

    ``::`` includes IPv4, and is replaced by ``0.0.0.0`` on machines without IPv6.

    Raises:
        OSError: the port is in use, or the address does not belong to this machine.
    """
    bare = host.strip("[]")
    if bare == "::" and not socket.has_dualstack_ipv6():
        bare = "0.0.0.0"  # noqa: S104
    family, *_, address = socket.getaddrinfo(bare, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # asyncio sets this only on sockets with an explicit protocol; without it every response waits 40 ms for an ACK.
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, bare != "::")
        bound.bind(address)
    except BaseException:
        bound.close()
        raise
    return bound


@contextmanager
def logging_in_thread() -> Iterator[None]:
    """Write the log in a thread for the duration of the block, so that requests do not release the GIL."""
    root, lines = logging.getLogger(), queue.SimpleQueue[logging.LogRecord]()
    writers = root.handlers[:]
    listener = _BatchWriter(lines, *writers)
    root.handlers = [_DeferredHandler(lines)]
    listener.start()
    try:
        yield
    finally:
        listener.stop()
        root.handlers = writers


class _BatchWriter(QueueListener):
    """Writes lines in batches; writing each at once would compete for the GIL with every request."""

    def __init__(self, lines: queue.SimpleQueue[logging.LogRecord], *writers: logging.Handler) -> None:
        super().__init__(lines, *writers)
        self._lines = lines

    def dequeue(self, block: bool) -> logging.LogRecord:
        if self._lines.empty():
            time.sleep(_LINES_S)
        return super().dequeue(block)


class _DeferredHandler(QueueHandler):
    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        return record  # no need to make it picklable: it stays in this process


def _without_secrets(_logger: object, _method: str, line: str) -> str:
    return _SECRET.sub("vireid_…", line)


def log_config(human_readable: bool) -> dict[str, Any]:
    """Return the configuration of ``logging``: to stderr, formatted for people or as JSON lines."""
    stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)
    shared = [structlog.stdlib.add_log_level, structlog.stdlib.ExtraAdder(), stamp]
    processors: list[Any] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if human_readable:
        # The default, rich, prints local variables, such as the headers of a request.
        processors.append(structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback))
    else:
        processors += [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    processors.append(_without_secrets)
    formatter = {"()": structlog.stdlib.ProcessorFormatter, "foreign_pre_chain": shared, "processors": processors}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"lines": formatter},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "lines"}},
        "root": {"handlers": ["stderr"], "level": "WARNING"},
        "loggers": {"server": {"level": "INFO"}},
    }
