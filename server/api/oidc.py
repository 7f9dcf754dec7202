"""Bearer tokens of an OpenID Connect issuer: signature, claims, and the issuer's keys, which are fetched and cached."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from hashlib import sha256
from threading import Lock
from typing import Any

import httpx2
import jwt
from jwt import PyJWK, PyJWKSet

from server.domain.errors import Forbidden, NotReady, Unauthorized
from server.settings import Settings
from server.storage.api_keys import Scope

__all__ = ["IssuerKeys", "TokenCaller", "TokenVerifier", "fetch_keys", "is_token"]

ALL_GALLERIES = "*"
"""In the claim of galleries: all of them."""

_LEEWAY_S = 30  # between the clocks of issuer and server
_TIMEOUT_S = 5.0
_FRESH_S = 600.0  # after which the keys are fetched again
_UNKNOWN_KEY_S = 30.0  # between two fetches
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0
_LARGEST_ANSWER = 2**20
_LONGEST_TOKEN = 16_384
_REQUIRED = ["exp", "iss", "aud", "sub"]

log = logging.getLogger(__name__)

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class TokenCaller:
    """The caller that a token names. ``galleries`` None: all galleries."""

    issuer: str
    subject: str
    scopes: frozenset[Scope]
    galleries: frozenset[str] | None

    @property
    def id(self) -> str:
        """An id like that of an API key, the same for every token of the subject."""
        return f"oidc_{sha256(f'{self.issuer} {self.subject}'.encode()).hexdigest()[:16]}"


def is_token(secret: str) -> bool:
    """Return whether a bearer secret has the form of a JSON web token; an API key has no dots."""
    return secret.count(".") == 2


class TokenVerifier:
    """Verifies tokens by the settings ``oidc_*``. Thread-safe; ``verify`` may wait for the issuer's keys."""

    def __init__(self, settings: Settings, fetch: Callable[[], PyJWKSet] | None = None) -> None:
        self._settings = settings
        self._keys = IssuerKeys(fetch or (lambda: fetch_keys(settings.oidc_issuer or "", settings.oidc_jwks_url)))

    def verify(self, token: str) -> TokenCaller:
        """Return the caller that a token names.

        Raises:
            Unauthorized: it is malformed, expired, for another audience, of another issuer, or not signed by a key of
                the issuer with an accepted algorithm.
            Forbidden: it is valid and has no scope.
            NotReady: the keys of the issuer cannot be fetched.
        """
        if len(token) > _LONGEST_TOKEN:
            raise Unauthorized
        try:
            header = jwt.get_unverified_header(token)
            if header["alg"] not in self._settings.oidc_algorithms:
                raise Unauthorized
            claims = jwt.decode(
                token,
                self._keys.find(header.get("kid")),
                algorithms=list(self._settings.oidc_algorithms),
                audience=self._settings.oidc_audience,
                issuer=self._settings.oidc_issuer,
                leeway=_LEEWAY_S,
                options={"require": _REQUIRED},
            )
        except (jwt.PyJWTError, ValueError, TypeError, KeyError):
            raise Unauthorized from None
        return self._caller(claims)

    def close(self) -> None:
        """End the thread that fetches keys."""
        self._keys.close()

    def _caller(self, claims: Mapping[str, Any]) -> TokenCaller:
        settings = self._settings
        named = _words(_claim(claims, settings.oidc_scopes_claim))
        scopes = frozenset(scope for scope in Scope if settings.oidc_scope_prefix + scope in named)
        if not scopes:
            names = ", ".join(settings.oidc_scope_prefix + scope for scope in Scope)
            raise Forbidden(f"a token with one of {names} in the claim {settings.oidc_scopes_claim}")
        galleries = _words(_claim(claims, settings.oidc_galleries_claim))
        return TokenCaller(claims["iss"], claims["sub"], scopes, None if ALL_GALLERIES in galleries else galleries)


class IssuerKeys:
    """The signing keys of an issuer, fetched in a thread of their own.

    Keys are fetched again when they are old, or, at most twice a minute, when a token names an unknown one. A failure
    is followed by a pause that doubles up to a minute; known keys stay valid meanwhile.
    """

    def __init__(self, fetch: Callable[[], PyJWKSet], clock: Clock = time.monotonic) -> None:
        self._fetch, self._clock = fetch, clock
        self._thread = ThreadPoolExecutor(1, "issuer-keys")
        self._lock = Lock()
        self._keys: PyJWKSet | None = None
        self._fetching: Future[None] | None = None
        self._not_before, self._pause = float("-inf"), _FIRST_PAUSE_S
        self._fetched = float("-inf")

    def find(self, id: str | None) -> PyJWK:
        """Return the key of that id; without an id, the only key.

        Raises:
            Unauthorized: there is no such key.
            NotReady: the keys cannot be fetched.
        """
        found = self._known(id)
        stale = self._clock() - self._fetched > _FRESH_S
        if found is not None and not stale:
            return found
        fetching = self._start_fetch()
        if found is not None:
            return found
        if fetching is not None:
            try:
                fetching.result(2 * _TIMEOUT_S)
            except FutureTimeout:
                log.warning("fetching the keys of the token issuer takes long")
        if (found := self._known(id)) is not None:
            return found
        if self._keys is None:
            raise NotReady(["the keys of the token issuer cannot be fetched"])
        raise Unauthorized

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _known(self, id: str | None) -> PyJWK | None:
        keys = [] if self._keys is None else [key for key in self._keys.keys if key.public_key_use in (None, "sig")]
        if id is None:
            return keys[0] if len(keys) == 1 else None
        return next((key for key in keys if key.key_id == id), None)

    def _start_fetch(self) -> Future[None] | None:
        """Start to fetch, unless that runs already or must wait; returns what runs."""
        with self._lock:
            if self._fetching is not None and not self._fetching.done():
                return self._fetching
            now = self._clock()
            if now < self._not_before or now - self._fetched < _UNKNOWN_KEY_S:
                return None
            self._fetching = self._thread.submit(self._fetch_once)
            return self._fetching

    def _fetch_once(self) -> None:
        try:
            self._keys = self._fetch()
        except Exception as error:
            log.warning("the keys of the token issuer cannot be fetched, again in %d s: %r", self._pause, error)
            self._not_before = self._clock() + self._pause
            self._pause = min(2 * self._pause, _LONGEST_PAUSE_S)
        else:
            self._fetched, self._pause = self._clock(), _FIRST_PAUSE_S


def fetch_keys(issuer: str, jwks_url: str | None) -> PyJWKSet:
    """Fetch the keys of an issuer, from ``jwks_url`` or from the address that its discovery document names.

    Raises:
        Exception: the issuer does not answer, or not with keys.
    """
    with httpx2.Client(timeout=_TIMEOUT_S, follow_redirects=False) as client:
        if jwks_url is None:
            found = _fetch_json(client, f"{issuer.rstrip('/')}/.well-known/openid-configuration")
            if found["issuer"] != issuer:
                raise ValueError(f"the discovery document is of another issuer, {found['issuer']}")
            jwks_url = str(found["jwks_uri"])
        return PyJWKSet.from_dict(_fetch_json(client, jwks_url))


def _fetch_json(client: httpx2.Client, url: str) -> dict[str, Any]:
    with client.stream("GET", url) as response:
        response.raise_for_status()
        content = b""
        for block in response.iter_bytes():
            content += block
            if len(content) > _LARGEST_ANSWER:
                raise ValueError(f"{url} answers with more than {_LARGEST_ANSWER:,} bytes")
    found: dict[str, Any] = httpx2.Response(200, content=content).json()
    return found


def _claim(claims: Mapping[str, Any], path: str) -> object:
    """Return a claim by its path, as in ``realm_access.roles``; a claim whose name has dots is found first."""
    if path in claims:
        return claims[path]
    found: object = claims
    for name in path.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def _words(value: object) -> frozenset[str]:
    """Return the words of a claim: a string separated by blanks, or an array of strings."""
    words = value.split() if isinstance(value, str) else value if isinstance(value, list) else []
    return frozenset(word for word in words if isinstance(word, str))
