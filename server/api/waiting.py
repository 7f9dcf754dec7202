"""Waiting for work that a request has started: until the caller disconnects or the time of the request is over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import anyio
import anyio.to_thread
from fastapi import Request
from starlette.requests import ClientDisconnect

from server.api.fair_queue import FairQueue
from server.domain.errors import DeadlineExceeded

__all__ = ["Pools", "while_connected"]

Result = TypeVar("Result")

_DISCONNECT_CHECK_S = 0.25  # after which the connection of the caller is watched
_SCANS = 2


def _threads(count: int) -> Callable[[], anyio.CapacityLimiter]:
    return lambda: anyio.CapacityLimiter(count)


@dataclass(frozen=True, slots=True)
class Pools:
    """Threads for work that must not wait for other work, or that other work must not wait for."""

    limit_s: float
    authentication: anyio.CapacityLimiter = field(default_factory=_threads(4))
    readiness: anyio.CapacityLimiter = field(default_factory=_threads(2))
    _scan_threads: anyio.CapacityLimiter = field(default_factory=_threads(_SCANS))
    _scans: FairQueue = field(default_factory=lambda: FairQueue(_SCANS))

    async def scan(self, request: Request, key: str | None, work: Callable[[], Result]) -> Result:
        """Run ``work``, which reads a whole gallery, when it is the turn of the API key.

        Raises:
            ClientDisconnect: the caller has disconnected before.
            DeadlineExceeded: the turn does not come in time.
        """
        async with self._turn(request, key):
            return await anyio.to_thread.run_sync(work, limiter=self._scan_threads)

    @asynccontextmanager
    async def _turn(self, request: Request, key: str | None) -> AsyncIterator[None]:
        await while_connected(request, self._scans.take(key), self.limit_s)
        try:
            yield
        finally:
            self._scans.give_back()


async def while_connected(request: Request, work: Future[Result], limit_s: float) -> Result:
    """Return the result of ``work``, or cancel it.

    The connection is watched after a delay, within which most requests are finished.

    Raises:
        ClientDisconnect: the caller has disconnected.
        DeadlineExceeded: the work was not done within ``limit_s``.
    """
    if work.done():
        return work.result()
    loop = asyncio.get_running_loop()
    over: asyncio.Future[Exception | None] = loop.create_future()

    def settle(reason: Exception | None = None) -> None:
        if not over.done():
            over.set_result(reason)

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        settle(ClientDisconnect())

    watching: list[asyncio.Task[None]] = []
    timers = [
        loop.call_later(_DISCONNECT_CHECK_S, lambda: watching.append(loop.create_task(watch()))),
        loop.call_later(limit_s, settle, DeadlineExceeded(limit_s)),
    ]
    work.add_done_callback(lambda _: loop.call_soon_threadsafe(settle))
    try:
        reason = await over
        if reason is not None and work.cancel():
            raise reason
        return work.result() if work.done() else await asyncio.wrap_future(work)
    finally:
        for timer in timers:
            timer.cancel()
        for task in watching:
            task.cancel()
        work.cancel()
