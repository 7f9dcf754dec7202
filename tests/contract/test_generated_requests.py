"""Requests that schemathesis derives from the OpenAPI document, sent with each kind of API key."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from httpx2 import Client
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from sqlalchemy import update

from server.api.openapi import document
from server.runner import in_background
from server.settings import Settings
from server.storage import tables
from server.storage.api_keys import ApiKeys, Scope
from server.storage.sql_store import SqlStore
from server.storage.transactions import writing
from tests.server.image_files import crop
from tests.server.stub_model import write_model

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
SHORT, LONG = 1, 40
"""Requests for each operation and kind of data, valid and invalid."""
PATIENCE_S = 60
KNOWN = {"gallery": "g", "item": "a", "alias": "latest", "name": "stub"}
"""Path parameters of what exists, used by half of the requests."""
REJECTED = ("none", "expired")
KEYS = (*REJECTED, "search", "write", "admin", "limited")


@schemathesis.serializer(
    "application/x-tar", "application/gzip", "application/zip", "application/vnd.apache.parquet", "application/x-ndjson"
)
def as_bytes(_context: object, value: object) -> bytes:
    return value if isinstance(value, bytes) else str(getattr(value, "data", value)).encode("utf-8", "replace")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, str]]]:
    """URL of a server that requires keys, and the secret of each kind of key."""
    folder = tmp_path_factory.mktemp("generated")
    write_model(folder / "zoo" / "stub")
    secrets = create_keys(folder / "data")
    chosen = Settings(
        data_dir=folder / "data", model_dir=folder / "zoo", device="cpu", threads=1, port=0, auth="required"
    )
    with in_background(chosen) as url:
        yield url, secrets


def create_keys(data: Path) -> dict[str, str]:
    with closing(SqlStore(f"sqlite:///{data / 'vireid.db'}")) as store:
        keys = ApiKeys(store.engine)
        _, fixture = keys.create("fixture", [Scope.ADMIN], None)
        secrets = {scope.value: keys.create(scope, [scope], None)[1] for scope in Scope}
        expired, secrets["expired"] = keys.create(
            "expired", [Scope.ADMIN], None, expires_at=datetime.now(UTC) + timedelta(days=1)
        )
        with writing(store.engine) as connection:
            past = update(tables.api_keys).where(tables.api_keys.c.id == expired.id)
            connection.execute(past.values(expires_at=datetime.now(UTC) - timedelta(days=1)))
    return secrets | {"fixture": fixture}


class Sender:
    """Sends generated requests with each kind of key and counts the statuses."""

    def __init__(self, url: str, secrets: dict[str, str]) -> None:
        self.client = Client(base_url=url, headers={"x-api-key": secrets["fixture"]}, timeout=PATIENCE_S)
        self.session = requests.Session()
        self.url, self.secrets = url, secrets
        self.counts: dict[str, Counter[int]] = {key: Counter() for key in KEYS}

    def close(self) -> None:
        self.client.close()
        self.session.close()

    def send_generated(self, operation: Any, mode: GenerationMode, count: int) -> None:
        """Send ``count`` requests to an operation, each with every key."""
        self.prepare()
        names = {parameter.name for parameter in operation.path_parameters}
        known = {name: value for name, value in KNOWN.items() if name in names}

        @settings(
            max_examples=count,
            derandomize=True,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(operation.as_strategy(generation_mode=mode), st.booleans())
        def once(case: Any, existing: bool) -> None:
            if existing:
                case.path_parameters = {**(case.path_parameters or {}), **known}
            for key in KEYS:
                self.send(case, key)

        with suppress(Unsatisfiable):  # an operation without parameters and body has no invalid requests
            once()

    def send(self, case: Any, key: str) -> None:
        if case.method == "DELETE":
            self.prepare()
        secret = self.secrets.get(key)
        headers = {} if secret is None else {"x-api-key": secret}
        response = case.call(base_url=self.url, headers=headers, session=self.session, timeout=PATIENCE_S)
        self.counts[key][response.status_code] += 1
        case.validate_response(response, checks=CHECKS)
        if key in REJECTED and case.operation.path.startswith("/v1/"):
            assert response.status_code == 401

    def prepare(self) -> None:
        """Create what ``KNOWN`` names, unless it exists, and a key that is limited to the gallery."""
        if self.client.post("/v1/galleries", json={"name": "g"}).status_code == 201:
            body = {"name": "limited", "scopes": ["search", "write"], "galleries": ["g"]}
            self.secrets["limited"] = self.client.post("/v1/keys", json=body).json()["secret"]
        self.client.put("/v1/aliases/latest", json={"gallery": "g"})
        files = [("images", ("a.png", crop(1)))]
        self.client.post("/v1/galleries/g/items", files=files, data={"items": '[{"id": "a", "modality": "visible"}]'})


def check(server: tuple[str, dict[str, str]], count: int) -> None:
    schema = schemathesis.openapi.from_dict(document())
    with closing(Sender(*server)) as sender:
        for operation, mode in itertools.product(schema.get_all_operations(), GenerationMode):
            sender.send_generated(operation.ok(), mode, count)
        assert sender.client.get("/readyz").status_code == 200
    for key in REJECTED:
        assert sender.counts[key].keys() == {200, 401}, "200: healthz and readyz"
    for key in set(KEYS) - set(REJECTED):
        assert sender.counts[key].keys() >= {200, 422}, key


def test_few_generated_requests_get_documented_responses(server: tuple[str, dict[str, str]]) -> None:
    check(server, SHORT)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_many_generated_requests_get_documented_responses(server: tuple[str, dict[str, str]]) -> None:
    check(server, LONG)
