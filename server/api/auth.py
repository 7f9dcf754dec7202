"""Who is asking, and whether they may. Keys are checked before a byte of the body is read."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Request
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as AsgiScope

from server.access import Keys, Scope
from server.api.errors import problem_response
from server.api.service import service_of
from server.errors import Forbidden, ServiceError, Unauthorized
from server.settings import is_loopback

__all__ = ["Admin", "Authentication", "Caller", "Reader", "Searcher", "Writer"]

_PROTECTED = ("/v1/", "/metrics")
_KEY = "caller"
_OF_PROXIES = frozenset({"forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip"})


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: a key, or anybody (``key_id`` None) where no keys are needed. ``galleries`` None: all."""

    key_id: str | None
    scopes: frozenset[Scope]
    galleries: frozenset[str] | None

    def check(self, scope: Scope, gallery: str | None) -> None:
        """Require a scope (``admin`` has every other) and, where one is named, the gallery.

        Raises:
            Forbidden: the key does not cover it, whether or not there is such a gallery.
        """
        if not self.scopes & {scope, Scope.ADMIN}:
            raise Forbidden(f"a key with the scope {scope}")
        if gallery is not None and self.galleries is not None and gallery not in self.galleries:
            raise Forbidden(f"a key for the gallery {gallery}")
        if scope is Scope.ADMIN and self.galleries is not None:
            raise Forbidden("a key for every gallery")


ANYBODY = Caller(None, frozenset(Scope), None)


class Authentication:
    """Finds out the caller of everything that is protected. Where no keys are needed, nothing is, but for this machine.

    A web page of another origin can make a browser send requests to loopback addresses, by form or by a name that
    resolves there. So where no keys are needed, ``Host`` must be a loopback name and ``Origin``, if any, the same. What
    says that a proxy passed it on is refused, too: it may come from anywhere. Not every proxy says so.
    """

    def __init__(self, app: ASGIApp, required: bool) -> None:
        self.app, self.required = app, required

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "http" and (not self.required or scope["path"].startswith(_PROTECTED)):
            request = Request(scope)
            try:
                scope["state"][_KEY] = await self._caller(request)
            except ServiceError as error:
                await problem_response(request, error)(scope, receive, send)
                return
        await self.app(scope, receive, send)

    async def _caller(self, request: Request) -> Caller:
        if not self.required:
            _require_local(request)
            return ANYBODY
        return await run_in_threadpool(_verify, service_of(request.scope).keys, _secret(request))


def _verify(keys: Keys, secret: str) -> Caller:
    key = keys.verify(secret)
    return Caller(key.id, key.scopes, key.galleries)


def _secret(request: Request) -> str:
    scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
    secret = bearer.strip() if scheme.lower() == "bearer" else request.headers.get("x-api-key", "")
    if not secret:
        raise Unauthorized
    return secret


def _require_local(request: Request) -> None:
    host, origin = request.headers.get("host", ""), request.headers.get("origin")
    if not is_loopback(urlsplit(f"//{host}").hostname or ""):
        raise Forbidden(f"a request to this machine's loopback address, not to {host}; elsewhere keys are needed")
    if origin is not None and urlsplit(origin).netloc != host:
        raise Forbidden("a request from this server's own page; pages of other origins need a key")
    if passed_on := sorted(_OF_PROXIES & set(request.headers)):
        raise Forbidden(
            f"a request from this machine itself, not one that a proxy passes on ({', '.join(passed_on)}): "
            "behind a proxy start the server with VIREID_AUTH=required"
        )


def _caller_with(needed: Scope | None) -> Callable[[Request], Awaitable[Caller]]:
    async def caller(request: Request) -> Caller:
        found: Caller = request.scope["state"][_KEY]
        if needed is not None:
            name = request.path_params.get("gallery")
            found.check(needed, None if name is None else service_of(request.scope).galleries.resolve(name))
        return found

    return caller


Reader = Annotated[Caller, Depends(_caller_with(None))]
"""Any valid key."""
Searcher = Annotated[Caller, Depends(_caller_with(Scope.SEARCH))]
"""A key with the scope ``search``, for the gallery of the path; an alias counts as the gallery it stands for."""
Writer = Annotated[Caller, Depends(_caller_with(Scope.WRITE))]
"""A key with the scope ``write``, for the gallery of the path."""
Admin = Annotated[Caller, Depends(_caller_with(Scope.ADMIN))]
"""A key with the scope ``admin``."""
