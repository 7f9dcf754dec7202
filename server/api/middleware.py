"""Pure ASGI, so that every answer passes here, whoever wrote it: headers, the last resort, the body limit."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.api.bodies import JSON, media_type
from server.api.errors import framework_response
from server.api.service import service_of
from server.api.trace import start_trace

__all__ = ["BodyLimit", "Tracing"]

_CONTENT_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_SAFETY = (
    (b"content-security-policy", _CONTENT_POLICY),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)

log = logging.getLogger(__name__)


class Tracing:
    """Outermost: request id, ``Server-Timing`` and safety headers on every answer; a log line and a count of each.

    An exception that nobody handled becomes a 500 problem; its traceback goes to the log, with the request id.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
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
                    *_SAFETY,
                ]
            await send(message)

        try:
            await self.app(scope, receive, send_with_headers)
        except ClientDisconnect:
            status = 499  # nobody is left to answer; the number is the log's, by custom
        except Exception:
            log.exception("request failed", extra={"request_id": trace.request_id})
            if status is not None:
                raise  # the answer has begun: all that is left is to break it off
            await framework_response(Request(scope), 500)(scope, receive, send_with_headers)
        finally:
            route = getattr(scope.get("route"), "path", "(none)")
            service_of(scope).metrics.request(scope["method"], route, status or 500, trace)
            facts = {"method": scope["method"], "route": route, "status": status, "request_id": trace.request_id}
            log.info("request", extra={**facts, **trace.milliseconds()})


class BodyLimit:
    """Refuses a body of more than ``limit`` bytes: by its ``Content-Length`` at once, else by counting what arrives.

    ``others`` are the limits of paths that match whole, but for JSON, which is read into memory everywhere.
    """

    def __init__(self, app: ASGIApp, limit: int, others: Mapping[re.Pattern[str], int]) -> None:
        self.app, self.limit, self.others = app, limit, others

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        limit = self._limit(request)
        announced = request.headers.get("content-length", "0")
        if not announced.isdecimal() or int(announced) > limit:
            await framework_response(request, 413 if announced.isdecimal() else 400)(scope, receive, send)
            return
        received = 0

        async def receive_counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                raise HTTPException(413)
            return message

        await self.app(scope, receive_counted, send)

    def _limit(self, request: Request) -> int:
        if media_type(request) == JSON:
            return self.limit
        found = (limit for path, limit in self.others.items() if path.fullmatch(request.scope["path"]))
        return next(found, self.limit)
