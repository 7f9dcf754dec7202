"""Authentication and authorisation. API keys are checked before the request body is read."""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from hashlib import sha256
from threading import Lock
from typing import Annotated

import anyio.to_thread
from fastapi import Depends, Request
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as AsgiScope

from server.api.app_state import AppState, state_of
from server.api.case_reference import read_reference
from server.api.errors import MalformedBody, problem_response
from server.api.oidc import TokenCaller, is_token
from server.api.rates import Rates, network_of
from server.domain.errors import Forbidden, RateLimited, ServiceError, TooManyFailures, Unauthorized
from server.settings import is_loopback
from server.storage.api_keys import ApiKey, Scope
from server.storage.audit_log import RequestReference, request_reference

__all__ = ["Admin", "Authentication", "Caller", "Reader", "Searcher", "Writer"]

_PROTECTED = ("/v1/", "/metrics")
_KEY = "caller"
_PROXY_HEADERS = frozenset({"forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip"})
_OWN_PAGE = frozenset({"same-origin", "none"})
"""Values of ``Sec-Fetch-Site`` for requests of the server's own page, and of an address that the user has typed."""
_AUTHORITY = r"(?P<host>[A-Za-z0-9._~%!$&'()*+,;=-]+|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{0,5}))?"
_HOST = re.compile(_AUTHORITY)
_ORIGIN = re.compile(rf"null|[A-Za-z][A-Za-z0-9+.-]*://(?P<authority>{_AUTHORITY})")
_LARGEST_PORT = 65535
_FAILURES_PER_MINUTE = 10
"""Most rejected keys that are recorded in the audit log each minute; the others are counted."""


@dataclass(frozen=True, slots=True)
class Caller:
    """The caller of a request: an API key, a subject of a token, or anyone (``key_id`` None) where none is required.

    ``galleries`` None means all galleries.
    """

    key_id: str | None
    scopes: frozenset[Scope]
    galleries: frozenset[str] | None

    def covers(self, gallery: str | None) -> bool:
        """Return whether the key may access the gallery; None: whether it may access all galleries."""
        return self.galleries is None or gallery in self.galleries

    def check(self, scope: Scope, gallery: str | None, *, requested: str | None = None) -> None:
        """Require a scope (``admin`` includes the others) and access to the gallery, if one is given.

        ``requested`` is the name in the request, where that may be an alias: the refusal names only what the caller
        knows already.

        Raises:
            Forbidden: the key does not allow it, whether or not the gallery exists.
        """
        if not self.scopes & {scope, Scope.ADMIN}:
            raise Forbidden(f"a key with the scope {scope}")
        if gallery is not None and not self.covers(gallery):
            raise Forbidden(f"a key for the gallery {requested or gallery}")
        if scope is Scope.ADMIN and self.galleries is not None:
            raise Forbidden("a key for every gallery")


ANYONE = Caller(None, frozenset(Scope), None)


class Authentication:
    """ASGI middleware that identifies the caller of every protected path.

    Where no API keys are required, only this machine may send requests. A web page of another origin can make a
    browser send requests to loopback addresses, by a form, an image or a host name that resolves there. Therefore
    ``Host`` must be a loopback name, ``Origin``, if present, must be equal to it, and ``Sec-Fetch-Site``, which
    browsers also send with images and links, must not name another site. Requests with headers of a proxy are rejected
    too, because they may come from any machine; not every proxy sets such headers.

    Where keys are required, rejected ones are recorded in the audit log, and each key keeps to its limits. An address
    that sent ``failures`` requests without a valid key in a minute gets 429 for all its requests, before any key is
    looked up.

    A malformed ``Host`` or ``Origin`` is rejected on every path.
    """

    def __init__(self, app: ASGIApp, required: bool, failures: int | None) -> None:
        self.app, self.required, self._most_failures = app, required, failures
        self._requests, self._failures, self._recorded = Rates(), Rates(), _FailureSampler()

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "http":
            request = Request(scope)
            try:
                _check_syntax(request)
                request_reference.set(RequestReference())  # of this request's task and the threads that it uses
                if not self.required or scope["path"].startswith(_PROTECTED):
                    scope["state"][_KEY] = await self._caller(request)
                token = (request_reference.get() or RequestReference()).token
                request_reference.set(replace(read_reference(request), token=token))
            except ServiceError as error:
                await problem_response(request, error)(scope, receive, send)
                return
        await self.app(scope, receive, send)

    async def _caller(self, request: Request) -> Caller:
        if not self.required:
            _require_local(request)
            return ANYONE
        key = await self._valid_key(request)
        if isinstance(key, TokenCaller):
            token = {"issuer": key.issuer, "subject": key.subject}
            request_reference.set(RequestReference(token=token))
        elif key.requests_per_minute is not None:
            if wait_s := self._requests.wait_s(key.id, key.requests_per_minute):
                raise RateLimited(wait_s)
            self._requests.count(key.id, key.requests_per_minute)
        return Caller(key.id, key.scopes, key.galleries)

    async def _valid_key(self, request: Request) -> ApiKey | TokenCaller:
        state, most = state_of(request.scope), self._most_failures
        address = network_of(request.client.host) if request.client else ""
        if most is not None and (wait_s := self._failures.wait_s(address, most)):
            raise TooManyFailures(wait_s)
        try:
            secret, threads = _secret(request), state.pools.authentication
            return await anyio.to_thread.run_sync(self._verify, request, state, secret, limiter=threads)
        except Unauthorized:
            if most is not None:
                self._failures.count(address, most)
            raise

    def _verify(self, request: Request, state: AppState, secret: str) -> ApiKey | TokenCaller:
        try:
            if state.tokens is not None and is_token(secret):
                return state.tokens.verify(secret)
            return state.keys.verify(secret)
        except Unauthorized:
            skipped = self._recorded.sample()
            if skipped is not None:
                detail = {
                    "address": request.client and request.client.host,
                    "secret_sha256_begins": sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()[:8],
                    "not_recorded_before": skipped,
                }
                state.audit.record(None, "key.rejected", None, detail)
            raise


class _FailureSampler:
    """Bounds how many failures are recorded. Thread-safe."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._minute, self._recorded, self._skipped = 0, 0, 0

    def sample(self) -> int | None:
        """Return how many failures were skipped since the last recorded one; None: skip this one too."""
        with self._lock:
            minute = int(time.monotonic() // 60)
            if minute != self._minute:
                self._minute, self._recorded = minute, 0
            if self._recorded >= _FAILURES_PER_MINUTE:
                self._skipped += 1
                return None
            self._recorded += 1
            skipped, self._skipped = self._skipped, 0
            return skipped


def _secret(request: Request) -> str:
    scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
    secret = bearer.strip() if scheme.lower() == "bearer" else request.headers.get("x-api-key", "")
    if not secret:
        raise Unauthorized
    return secret


def _check_syntax(request: Request) -> None:
    """Raise ``MalformedBody`` for a malformed ``Host`` or ``Origin``; both may be missing."""
    for name, pattern in (("host", _HOST), ("origin", _ORIGIN)):
        values = request.headers.getlist(name)
        found = pattern.fullmatch(values[0]) if values else None
        valid = not values or values == [""] or (found is not None and int(found["port"] or 0) <= _LARGEST_PORT)
        if len(values) > 1 or not valid:
            raise MalformedBody(f"the header {name.title()} is malformed")


def _require_local(request: Request) -> None:
    host, origin = request.headers.get("host", ""), request.headers.get("origin")
    name = _HOST.fullmatch(host)
    if name is None or not is_loopback(name["host"].strip("[]")):
        raise Forbidden(f"a request to this machine's loopback address, not to {host}; elsewhere keys are needed")
    if origin and (own := _ORIGIN.fullmatch(origin)) and own["authority"] != host:
        raise Forbidden("a request from this server's own page; pages of other origins need a key")
    if request.headers.get("sec-fetch-site", "none") not in _OWN_PAGE:
        raise Forbidden("a request from this server's own page, or an address typed by the user, not from another site")
    if passed_on := sorted(_PROXY_HEADERS & set(request.headers)):
        raise Forbidden(
            f"a request from this machine itself, not one that a proxy passes on ({', '.join(passed_on)}): "
            "behind a proxy start the server with VIREID_AUTH=required"
        )


def _caller_with(needed: Scope | None) -> Callable[[Request], Awaitable[Caller]]:
    async def caller(request: Request) -> Caller:
        found: Caller = request.scope["state"][_KEY]
        if needed is not None:
            name = request.path_params.get("gallery")
            gallery = None if name is None else state_of(request.scope).galleries.catalog.resolve(name)
            found.check(needed, gallery, requested=name)
        return found

    return caller


Reader = Annotated[Caller, Depends(_caller_with(None))]
"""Any valid API key."""
Searcher = Annotated[Caller, Depends(_caller_with(Scope.SEARCH))]
"""A key with the scope ``search``, for the gallery of the path; an alias is resolved first."""
Writer = Annotated[Caller, Depends(_caller_with(Scope.WRITE))]
"""A key with the scope ``write``, for the gallery of the path."""
Admin = Annotated[Caller, Depends(_caller_with(Scope.ADMIN))]
"""A key with the scope ``admin``."""
