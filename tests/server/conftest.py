"""A whole server over a stand-in model: real SQLite, real FAISS, real batching thread."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from server.app import create_app
from server.settings import Settings
from tests.server.standin import write_model

BASE_URL = "http://127.0.0.1:8000"
MAX_IMAGES, MAX_IMAGE_BYTES = 40, 49_999


def wait_until_loaded(app: FastAPI) -> None:
    app.state.service.galleries.loading.result(60)


@contextmanager
def serving(settings: Settings) -> Iterator[TestClient]:
    """A server that has loaded its galleries."""
    app = create_app(settings)
    with TestClient(app, base_url=BASE_URL) as client:
        wait_until_loaded(app)
        yield client


Start = Callable[..., AbstractContextManager[TestClient]]


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("zoo")
    write_model(directory / "standin")
    return directory


@pytest.fixture
def start(model_dir: Path, tmp_path: Path) -> Start:
    """Makes servers over one data directory; settings by keyword. Each runs within its ``with`` block."""

    def run(**settings: Any) -> AbstractContextManager[TestClient]:
        chosen = {"data_dir": tmp_path / "data", "model_dir": model_dir, "device": "cpu", "threads": 1, **settings}
        return serving(Settings(**chosen))

    return run


@pytest.fixture(scope="session")
def client(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """One server for every test that changes nothing but galleries of its own."""
    settings = Settings(
        data_dir=tmp_path_factory.mktemp("data"),
        model_dir=model_dir,
        device="cpu",
        threads=1,
        max_images=MAX_IMAGES,
        max_image_bytes=MAX_IMAGE_BYTES,
    )
    with serving(settings) as client:
        yield client


@pytest.fixture
def gallery(client: TestClient) -> str:
    """The name of an empty gallery of the shared server."""
    name = f"g-{uuid.uuid4().hex}"
    assert client.post("/v1/galleries", json={"name": name}).status_code == 201
    return name
