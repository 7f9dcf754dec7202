"""Tokens of an OpenID Connect issuer: what is accepted, what a token may do, and how its keys are fetched."""

from __future__ import annotations

import base64
import itertools
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from fastapi.testclient import TestClient
from jwt import PyJWKSet
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from server.api.oidc import IssuerKeys
from server.domain.errors import NotReady, Unauthorized
from tests.server.calls import check_problem
from tests.server.conftest import Start

AUDIENCE = "vireid"
RSA = {id: rsa.generate_private_key(65537, 2048) for id in ("first", "second", "stranger")}
EC = ec.generate_private_key(ec.SECP256R1())


class Issuer:
    """A local issuer: a discovery document and keys over HTTP, and tokens."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.keys = {"first": RSA["first"]}
        self.failing = False
        self.fetches = 0

    def document(self, path: str) -> dict[str, Any] | None:
        if path == "/.well-known/openid-configuration":
            return {"issuer": self.url, "jwks_uri": f"{self.url}/keys"}
        if path != "/keys" or self.failing:
            return None
        self.fetches += 1
        rsa_keys = [_public(RSAAlgorithm, key, id) for id, key in self.keys.items()]
        return {"keys": [*rsa_keys, _public(ECAlgorithm, EC, "curve")]}

    def token(self, key: Any = RSA["first"], id: str | None = "first", algorithm: str = "RS256", **changes: Any) -> str:
        now = int(time.time())
        claims = {
            "iss": self.url, "aud": AUDIENCE, "sub": "jane", "iat": now, "exp": now + 300,
            "scope": "openid vireid:search vireid:write", "vireid_galleries": ["door"],
        } | changes  # fmt: skip
        claims = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode(claims, key, algorithm, {} if id is None else {"kid": id})


def _public(algorithm: Any, key: Any, id: str) -> dict[str, Any]:
    return {**json.loads(algorithm.to_jwk(key.public_key())), "kid": id, "use": "sig"}


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = made.document(self.path)
            body = json.dumps(found or {}).encode()
            self.send_response(200 if found else 503)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        made = Issuer(server.server_port)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield made
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def serving(start: Start, issuer: Issuer, **settings: Any) -> Iterator[TestClient]:
    chosen = {"oidc_issuer": issuer.url, "oidc_audience": AUDIENCE, "auth": "required", **settings}
    with start(**chosen) as client:
        keys = client.app.state.service.keys  # type: ignore[attr-defined]
        _, secret = keys.create("fixture", ["admin"], None)
        for name in ("door", "gate"):
            client.post("/v1/galleries", json={"name": name}, headers={"x-api-key": secret})
        client.headers["x-fixture-key"] = secret
        yield client


def status(client: TestClient, token: str, path: str = "/v1/galleries/door", method: str = "GET") -> int:
    return client.request(method, path, headers={"authorization": f"Bearer {token}"}).status_code


def test_a_token_has_the_scopes_and_galleries_of_its_claims(start: Start, issuer: Issuer) -> None:
    with serving(start, issuer) as client:
        token = issuer.token()
        assert status(client, token) == 200
        assert status(client, token, "/v1/galleries/gate") == 403
        assert status(client, token, "/v1/keys") == 403
        assert status(client, issuer.token(scope="vireid:search"), "/v1/galleries/door/items/a", "DELETE") == 403
        everything = issuer.token(scope=["vireid:admin"], vireid_galleries="*")
        assert status(client, everything, "/v1/keys") == 200
        assert status(client, everything, "/v1/galleries/gate") == 200
        assert status(client, issuer.token(vireid_galleries=None)) == 403
        check_problem(client.get("/v1/models", headers=bearer(issuer.token(scope="openid search"))), 403, "forbidden")


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def test_claims_can_be_configured(start: Start, issuer: Issuer) -> None:
    options = {
        "oidc_scopes_claim": "realm_access.roles",
        "oidc_scope_prefix": "",
        "oidc_galleries_claim": "https://x.org/g",
    }
    with serving(start, issuer, **options) as client:
        token = issuer.token(realm_access={"roles": ["search", "x"]}, **{"https://x.org/g": "gate door"})
        assert status(client, token, "/v1/galleries/gate") == 200
        assert status(client, issuer.token()) == 403


def test_an_entry_of_the_audit_log_names_issuer_and_subject(start: Start, issuer: Issuer) -> None:
    with serving(start, issuer) as client:
        vector = [1.0] + [0.0] * 47
        body = {"vector": vector, "modality": "visible"}
        assert client.post("/v1/galleries/door/search", json=body, headers=bearer(issuer.token())).status_code == 200
        page = client.get("/v1/audit", headers={"x-api-key": client.headers["x-fixture-key"]}).json()
        entry = page["entries"][0]
        assert entry["action"] == "search"
        assert entry["detail"]["token"] == {"issuer": issuer.url, "subject": "jane"}
        assert entry["key_id"].startswith("oidc_")
        assert len(entry["key_id"]) <= 32
        client.get("/v1/galleries/door", headers={"x-api-key": "wrong"})
        rejected = client.get("/v1/audit", headers={"x-api-key": client.headers["x-fixture-key"]}).json()["entries"][0]
        assert rejected["action"] == "key.rejected"
        assert "token" not in rejected["detail"]


def unsigned(issuer: Issuer) -> str:
    body = issuer.token().split(".")[1]
    none = base64.urlsafe_b64encode(b'{"alg":"none","kid":"first"}').rstrip(b"=").decode()
    return f"{none}.{body}."


def signed_with_the_public_key(issuer: Issuer) -> str:
    """HMAC with the public key as secret: the confusion of algorithms."""
    import hashlib
    import hmac

    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    head = base64.urlsafe_b64encode(b'{"alg":"HS256","kid":"first"}').rstrip(b"=").decode()
    body = issuer.token().split(".")[1]
    secret = RSA["first"].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    signature = hmac.new(secret, f"{head}.{body}".encode(), hashlib.sha256).digest()
    return f"{head}.{body}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


REJECTED = {
    "expired": lambda issuer: issuer.token(exp=int(time.time()) - 120),
    "not valid yet": lambda issuer: issuer.token(nbf=int(time.time()) + 300),
    "without expiry": lambda issuer: issuer.token(exp=None),
    "without subject": lambda issuer: issuer.token(sub=None),
    "for another audience": lambda issuer: issuer.token(aud="another"),
    "without audience": lambda issuer: issuer.token(aud=None),
    "of another issuer": lambda issuer: issuer.token(iss="https://other.example.org"),
    "signed by a stranger": lambda issuer: issuer.token(RSA["stranger"]),
    "of an unknown key": lambda issuer: issuer.token(RSA["stranger"], "stranger"),
    "of a key of another type": lambda issuer: issuer.token(id="curve"),
    "with an algorithm that is not accepted": lambda issuer: issuer.token(algorithm="RS512"),
    "without a signature": unsigned,
    "with the public key as secret": signed_with_the_public_key,
    "without the id of a key, where there are several": lambda issuer: issuer.token(id=None),
    "no token": lambda issuer: "a.b.c",
    "longer than a token": lambda issuer: issuer.token(more="x" * 20_000),
    "changed": lambda issuer: issuer.token()[:-8] + "AAAAAAAA",
}


def test_invalid_tokens_are_rejected(start: Start, issuer: Issuer) -> None:
    with serving(start, issuer) as client:
        for name, make in REJECTED.items():
            assert client.get("/v1/models", headers=bearer(make(issuer))).status_code == 401, name
        assert status(client, issuer.token()) == 200
        assert status(client, issuer.token(EC, "curve", "ES256")) == 200


def test_a_token_is_rejected_where_no_issuer_is_set(start: Start, issuer: Issuer) -> None:
    with start(auth="required") as client:
        assert status(client, issuer.token()) == 401
    assert not issuer.fetches


def test_keys_are_fetched_once_and_again_when_the_issuer_has_a_new_one(start: Start, issuer: Issuer) -> None:
    with serving(start, issuer) as client:
        verifier = client.app.state.service.tokens  # type: ignore[attr-defined]
        for _ in range(5):
            assert status(client, issuer.token()) == 200
        assert issuer.fetches == 1
        issuer.keys = {"first": RSA["first"], "second": RSA["second"]}
        token = issuer.token(RSA["second"], "second")
        assert status(client, token) == 401, "the keys were fetched just now"
        assert issuer.fetches == 1
        verifier._keys._fetched -= 60
        assert status(client, token) == 200
        assert issuer.fetches == 2


def test_without_an_answer_of_the_issuer_requests_with_tokens_are_503(start: Start, issuer: Issuer) -> None:
    issuer.failing = True
    with serving(start, issuer) as client:
        check_problem(client.get("/v1/models", headers=bearer(issuer.token())), 503, "not-ready")
        key = client.headers["x-fixture-key"]
        assert client.get("/v1/models", headers={"x-api-key": key}).status_code == 200
        issuer.failing = False
        assert status(client, issuer.token()) == 503, "the pause after a failure"
        client.app.state.service.tokens._keys._not_before = 0  # type: ignore[attr-defined]
        assert status(client, issuer.token()) == 200


def key_set() -> PyJWKSet:
    return PyJWKSet.from_dict({"keys": [_public(RSAAlgorithm, RSA["first"], "first")]})


def test_pauses_after_failures_double_and_known_keys_stay_valid() -> None:
    now, calls = [0.0], [0]

    def fetch() -> PyJWKSet:
        calls[0] += 1
        if calls[0] == 1:
            return key_set()
        raise OSError("no answer")

    keys = IssuerKeys(fetch, lambda: now[0])
    assert keys.find("first").key_id == "first"
    assert keys.find(None).key_id == "first", "the only key"
    with pytest.raises(Unauthorized):
        keys.find("other")
    assert calls == [1]
    attempts = []
    for second in range(601, 1200):
        now[0] = float(second)
        before = calls[0]
        assert keys.find("first").key_id == "first"
        keys._fetching.result()  # type: ignore[union-attr]
        if calls[0] > before:
            attempts.append(second)
    waits = [later - earlier for earlier, later in itertools.pairwise(attempts)]
    assert waits[:6] == [1, 2, 4, 8, 16, 32]
    assert set(waits[6:]) == {60}
    keys.close()


def test_many_requests_wait_for_one_fetch() -> None:
    started, calls = threading.Event(), [0]

    def fetch() -> PyJWKSet:
        calls[0] += 1
        started.wait(5)
        return key_set()

    keys = IssuerKeys(fetch)
    found: list[str | None] = []
    threads = [threading.Thread(target=lambda: found.append(keys.find("first").key_id)) for _ in range(8)]
    for thread in threads:
        thread.start()
    started.set()
    for thread in threads:
        thread.join()
    assert (found, calls) == (["first"] * 8, [1])
    keys.close()


def test_failed_first_fetch_is_not_ready() -> None:
    def fetch() -> PyJWKSet:
        raise OSError("no answer")

    keys = IssuerKeys(fetch)
    with pytest.raises(NotReady):
        keys.find("first")
    keys.close()


@pytest.mark.parametrize(
    "options",
    [
        {"oidc_issuer": "https://id.example.org"},
        {"oidc_audience": "vireid"},
        {"oidc_issuer": "http://id.example.org", "oidc_audience": "vireid"},
        {"oidc_issuer": "id.example.org", "oidc_audience": "vireid"},
        {"oidc_issuer": "https://id.example.org", "oidc_audience": "vireid", "oidc_algorithms": "HS256"},
        {"oidc_issuer": "https://id.example.org", "oidc_audience": "vireid", "oidc_algorithms": "none"},
        {"oidc_issuer": "https://id.example.org", "oidc_audience": "vireid", "oidc_jwks_url": "file:///etc/passwd"},
    ],
)
def test_insecure_settings_are_refused(start: Start, options: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"(?i)oidc"):
        start(**options)
