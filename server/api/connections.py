"""Limits on connections that uvicorn lacks: how many there are, and how long the server waits for a client."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from server.api.errors import problem_bytes
from server.domain.errors import HeaderTooLarge, RequestTooSlow, ServiceError, TooManyConnections

__all__ = ["Connection", "ConnectionLimits"]

MAX_HEADER_BYTES = 65_536
MIN_BODY_RATE = 1_024
"""Bytes per second at which a body must arrive, on average over ``body_s``."""


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Number of open connections, and seconds: for a whole header, and over which the rate of a body is measured.

    A client that reads nothing of its response for ``body_s`` is disconnected, too.
    """

    connections: int
    header_s: float
    body_s: float


class _Part(Enum):
    """What is awaited from the client."""

    HEADER = auto()
    BODY = auto()
    NOTHING = auto()


class Connection(HttpToolsProtocol):
    """A connection that :meth:`check` closes when its client is too slow.

    When there are too many connections, the one whose client was silent for longest is closed, provided that no
    request of it is being served; first of all one that has had no response yet. If every one is being served, the new
    connection is refused.
    """

    def __init__(self, *args: Any, limits: ConnectionLimits, **options: Any) -> None:
        super().__init__(*args, **options)
        self._limits = limits
        self._part, self._since, self._received = _Part.NOTHING, 0.0, 0
        self._heard, self._answered = 0.0, False
        self._unsent, self._unsent_since = 0, 0.0

    @property
    def serving(self) -> bool:
        """Whether a whole request was received whose response is not complete."""
        return self._part is _Part.NOTHING and self._responding

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await(_Part.HEADER)
        self._heard = self._since
        if len(self.connections) > self._limits.connections:
            self._make_room()

    def data_received(self, data: bytes) -> None:
        self._heard = time.monotonic()
        self._received += len(data)
        super().data_received(data)
        if self._part is _Part.NOTHING and not self._responding and self.timeout_keep_alive_task is None:
            self._await(_Part.HEADER)  # what came did not begin a request, yet uvicorn's idle timeout is over
        if self._part is _Part.HEADER and self._received > MAX_HEADER_BYTES:
            self._refuse(HeaderTooLarge(MAX_HEADER_BYTES))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._part is not _Part.HEADER:
            self._await(_Part.HEADER)

    def on_headers_complete(self) -> None:
        self._await(_Part.BODY)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._part = _Part.NOTHING
        super().on_message_complete()

    def on_response_complete(self) -> None:
        self._answered = True
        super().on_response_complete()

    def resume_writing(self) -> None:
        self._unsent = 0
        super().resume_writing()

    def check(self, now: float) -> None:
        """Close the connection if its client is too slow at ``now``, by the monotonic clock."""
        unsent = self.transport.get_write_buffer_size()
        if not unsent or unsent != self._unsent:
            self._unsent, self._unsent_since = unsent, now
        elif now - self._unsent_since > self._limits.body_s:
            self.transport.abort()
        if self._part is _Part.NOTHING or self.transport.is_closing():
            return
        if self.flow.read_paused or (self._part is _Part.HEADER and self._responding):
            self._await(self._part)  # the server lets the client wait, not the client the server
        elif self._part is _Part.HEADER and now - self._since > self._limits.header_s:
            self._refuse(RequestTooSlow(f"the header did not arrive within {self._limits.header_s:g} s"))
        elif self._part is _Part.BODY and now - self._since > self._limits.body_s:
            if self._received < MIN_BODY_RATE * self._limits.body_s:
                self._refuse(RequestTooSlow(f"the body arrives at less than {MIN_BODY_RATE:,} bytes per second"))
            else:
                self._await(_Part.BODY)

    @property
    def _responding(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _await(self, part: _Part) -> None:
        self._part, self._since, self._received = part, time.monotonic(), 0

    def _make_room(self) -> None:
        waiting = [other for other in self._others() if not other.serving and not other.transport.is_closing()]
        if waiting:
            min(waiting, key=lambda other: (other._answered, other._heard))._refuse(TooManyConnections())
        else:
            self._received = 1  # it gets a response, though it has sent nothing yet
            self._refuse(TooManyConnections())

    def _others(self) -> list[Connection]:
        return [other for other in self.connections if isinstance(other, Connection) and other is not self]

    def _refuse(self, error: ServiceError) -> None:
        """Close the connection, with a response if a request has begun that has none."""
        begun = self._responding and self._part is _Part.BODY and not self.cycle.response_started and not self.pipeline
        if begun or (not self._responding and self._part is _Part.HEADER and self._received):
            status, headers, body = problem_bytes(error)
            lines = [(b"content-length", b"%d" % len(body)), (b"connection", b"close"), *headers]
            head = b"".join(b"%s: %s\r\n" % line for line in lines)
            self.transport.write(STATUS_LINE[status] + head + b"\r\n" + body)
        self.transport.close()
