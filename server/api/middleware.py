"""ASGI middleware for every response: request id, timing and security headers, unexpected errors, body limit."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Mapping

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.api.app_state import state_of
from server.api.errors import framework_response, problem_response
from server.api.request_parsing import JSON, media_type
from server.api.trace import start_trace
from server.domain.errors import BodyMemoryFull, NotReady

__all__ = ["BodyLimit", "Tracing"]

_CONTENT_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_SECURITY_HEADERS = (
    (b"content-security-policy", _CONTENT_POLICY),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
)

MAX_JSON_BYTES = 8 * 2**20
"""Limit of a JSON body other than one of vectors. Parsing it takes a fraction of a second."""

VECTOR_PATHS = re.compile(r"/v1/galleries/[^/]+/vectors")

log = logging.getLogger(__name__)


class Tracing:
    """Adds request id, ``Server-Timing`` and security headers to every response, logs it and counts it.

    An unhandled exception becomes a 500 problem; its traceback is logged with the request id.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        method = scope["method"]
        if method == "HEAD":  # the HTTP server omits the body, because its own scope says HEAD
            scope = {**scope, "method": "GET"}
        trace = start_trace(scope)
        status: int | None = None

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message["headers"],
                    (b"x-request-id", trace.request_id.encode()),
                    (b"server-timing", trace.server_timing().encode()),
                    (b"cache-control", b"no-store" if scope["path"].startswith("/v1/") else b"no-cache"),
                    *_SECURITY_HEADERS,
                ]
            await send(message)

        try:
            await self.app(scope, receive, send_with_headers)
        except ClientDisconnect:
            status = 499  # no response is sent; logs use this status by convention
        except asyncio.CancelledError:  # the server stops, and the request took longer than its grace period
            if status is not None:
                raise
            stopping = NotReady(["the server is shutting down"])
            await problem_response(Request(scope), stopping)(scope, receive, send_with_headers)
        except Exception:
            log.exception("request failed", extra={"request_id": trace.request_id})
            if status is not None:
                raise  # the response has begun and can only be cut off
            await framework_response(Request(scope), 500)(scope, receive, send_with_headers)
        finally:
            route = getattr(scope.get("route"), "path", "(none)")
            caller = scope["state"].get("caller")
            state = state_of(scope)
            state.metrics.request(method, route, status or 500, trace, caller and caller.key_id)
            if state.spans is not None:
                state.spans.record(method, route, status or 500, trace, Request(scope).headers)
            fields = {"method": method, "route": route, "status": status, "request_id": trace.request_id}
            log.info("request", extra={**fields, **trace.milliseconds()})


class BodyLimit:
    """Rejects a body of more than ``limit`` bytes, by its ``Content-Length`` or by counting the bytes received.

    ``others`` holds the limits of paths that match a pattern completely, whose bodies go to disk. They do not apply to
    JSON, which is always read into memory.

    The bodies in memory take ``memory`` bytes at most together: the request whose body would exceed that is refused.
    """

    def __init__(self, app: ASGIApp, limit: int, memory: int, others: Mapping[re.Pattern[str], int]) -> None:
        self.app, self.limit, self.others = app, limit, others
        self._free = memory

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        to_disk = self._limit_on_disk(request)
        limit = self._limit_in_memory(request) if to_disk is None else to_disk
        declared = request.headers.get("content-length", "0")
        if not declared.isdecimal() or int(declared) > limit:
            await framework_response(request, 413 if declared.isdecimal() else 400)(scope, receive, send)
            return
        received = held = 0

        async def receive_counted() -> Message:
            nonlocal received, held
            message = await receive()
            size = len(message.get("body", b""))
            received += size
            if received > limit:
                raise HTTPException(413)
            if to_disk is None:
                if size > self._free:
                    raise BodyMemoryFull
                self._free -= size
                held += size
            return message

        try:
            await self.app(scope, receive_counted, send)
        finally:
            self._free += held

    def _limit_in_memory(self, request: Request) -> int:
        """Return the limit of a body; JSON is parsed at once, so that it must be short, except where it is streamed."""
        at_once = media_type(request).endswith("json") and not VECTOR_PATHS.fullmatch(request.scope["path"])
        return min(self.limit, MAX_JSON_BYTES) if at_once else self.limit

    def _limit_on_disk(self, request: Request) -> int | None:
        if media_type(request) == JSON:
            return None
        return next((limit for path, limit in self.others.items() if path.fullmatch(request.scope["path"])), None)
