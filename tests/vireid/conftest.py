"""A real server on a loopback port, over the stub model, in a thread of the test process."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.runner import in_background
from server.settings import Settings
from tests.server.stub_model import write_model
from vireid.client import Client

MAX_IMAGES = 8


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("zoo")
    write_model(directory / "stub")
    return directory


@pytest.fixture(scope="session")
def url(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of one server, shared by all tests that change only their own galleries."""
    settings = Settings(
        data_dir=tmp_path_factory.mktemp("data"),
        model_dir=model_dir,
        device="cpu",
        threads=1,
        host="127.0.0.1",
        port=0,
        auth="off",
        max_images=MAX_IMAGES,
    )
    with in_background(settings) as address:
        yield address


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url) as client:
        yield client


@pytest.fixture
def gallery(client: Client) -> str:
    """The name of an empty gallery."""
    return client.create_gallery(f"g-{uuid.uuid4().hex}").name
