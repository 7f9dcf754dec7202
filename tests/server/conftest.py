"""Fixtures: stores for the contract tests, and a whole server over a stub model (SQLite, FAISS, batching)."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from server.app import create_app
from server.settings import Settings
from server.storage.encryption import Encryption, read_keys
from server.storage.sql_store import SqlStore, Store
from tests.postgresql import PrivatePostgresql
from tests.server.memory_store import MemoryStore
from tests.server.stub_model import write_model

BASE_URL = "http://127.0.0.1:8000"
KEYS = "k1:" + "QUFB" * 10 + "QUE="
"""An encryption key."""
MAX_IMAGES, MAX_IMAGE_BYTES = 40, 49_999


def wait_until_loaded(app: FastAPI) -> None:
    app.state.service.galleries.loader.loading.result(60)


@contextmanager
def serving(settings: Settings) -> Iterator[TestClient]:
    """Run a server whose galleries are loaded."""
    app = create_app(settings)
    with TestClient(app, base_url=BASE_URL) as client:
        wait_until_loaded(app)
        yield client


Start = Callable[..., AbstractContextManager[TestClient]]


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("zoo")
    write_model(directory / "stub")
    return directory


@pytest.fixture(scope="session")
def new_database(request: pytest.FixtureRequest) -> Callable[[], dict[str, Any]]:
    """Return a function that gives the setting of a new database, of the kind that ``--database`` names."""
    if request.config.getoption("--database") == "sqlite":
        return dict
    server: PrivatePostgresql = request.getfixturevalue("postgresql")
    return lambda: {"database_url": server.new_database()}


@pytest.fixture
def start(model_dir: Path, tmp_path: Path, new_database: Callable[[], dict[str, Any]]) -> Start:
    """Return a function that runs a server over one data directory in a ``with`` block; settings by keyword."""
    common = {"data_dir": tmp_path / "data", "model_dir": model_dir, "device": "cpu", "threads": 1, **new_database()}

    def run(**settings: Any) -> AbstractContextManager[TestClient]:
        chosen = {**common, **settings}
        return serving(Settings(**chosen))

    return run


@pytest.fixture(scope="session")
def client(
    model_dir: Path, tmp_path_factory: pytest.TempPathFactory, new_database: Callable[[], dict[str, Any]]
) -> Iterator[TestClient]:
    """One server, shared by the tests that change only their own galleries."""
    settings = Settings(
        data_dir=tmp_path_factory.mktemp("data"),
        model_dir=model_dir,
        device="cpu",
        threads=1,
        max_images=MAX_IMAGES,
        max_image_bytes=MAX_IMAGE_BYTES,
        **new_database(),
    )
    with serving(settings) as client:
        yield client


@pytest.fixture
def gallery(client: TestClient) -> str:
    """Name of a new, empty gallery of the shared server."""
    name = f"g-{uuid.uuid4().hex}"
    assert client.post("/v1/galleries", json={"name": name}).status_code == 201
    return name


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/data/vireid.db"


@pytest.fixture
def sql_store(url: str) -> Iterator[SqlStore]:
    store = SqlStore(url)
    yield store
    store.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of a new database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/data/vireid.db"
    server: PrivatePostgresql = request.getfixturevalue("postgresql")
    return server.new_database()


@pytest.fixture
def any_sql_store(database_url: str) -> Iterator[SqlStore]:
    """A SQL store over each kind of database, empty."""
    with closing(SqlStore(database_url)) as made:
        yield made


@pytest.fixture(params=["memory", "sqlite", "encrypted sqlite", "postgresql", "encrypted postgresql"])
def store(request: pytest.FixtureRequest, url: str) -> Iterator[Store]:
    """Each kind of store, empty."""
    if request.param == "memory":
        yield MemoryStore()
        return
    keys = read_keys(KEYS) if request.param.startswith("encrypted") else None
    if request.param.endswith("postgresql"):
        url = request.getfixturevalue("postgresql").new_database()
    with closing(SqlStore(url, Encryption(keys))) as made:
        yield made
