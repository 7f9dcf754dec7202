"""Fixtures: one browser, one server with a gallery of drawn people, and their crops as files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2
import pytest
from playwright.sync_api import Browser, Page

from models.card import Modality
from tests.drawing import write_people
from tests.server.stub_model import write_model
from tests.web.browser import open_page, run_browser, run_server

PEOPLE = range(6)
START = datetime(2026, 11, 21, 8, tzinfo=UTC)


@pytest.fixture(scope="module")  # it runs an event loop, beside which no asynchronous test of another file can run
def browser() -> Iterator[Browser]:
    with run_browser() as browser:
        yield browser


@pytest.fixture(scope="session")
def crops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of drawn crops, as ``write_people`` lays it out."""
    return write_people(tmp_path_factory.mktemp("crops"), PEOPLE, images=4)


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("zoo")
    write_model(directory / "stub")
    return directory


@pytest.fixture(scope="session")
def url(zoo: Path, crops: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a server with the gallery ``people``."""
    with run_server(tmp_path_factory.mktemp("data"), zoo) as (url, _):
        fill(url, crops, "people")
        yield url


@pytest.fixture
def page(browser: Browser, url: str) -> Iterator[Page]:
    with open_page(browser, url, "#/search?gallery=people") as page:
        yield page


def fill(url: str, crops: Path, gallery: str) -> None:
    """Create a gallery with every crop: identity, camera and, a minute apart, the time."""
    with httpx2.Client(base_url=url, timeout=60) as client:
        assert client.post("/v1/galleries", json={"name": gallery}).status_code == 201
        files = sorted(crops.rglob("*.png"))
        for start in range(0, len(files), 16):
            part = files[start : start + 16]
            items = [_item(path, start + n) for n, path in enumerate(part)]
            images = [("images", (path.name, path.read_bytes())) for path in part]
            data = {"items": json.dumps(items)}
            assert client.post(f"/v1/galleries/{gallery}/items", files=images, data=data).status_code == 201


def _item(path: Path, number: int) -> dict[str, object]:
    identity, camera, _ = path.stem.split("_")
    modality = Modality(path.parts[-3])
    return {
        "id": f"{modality}-{path.stem}",
        "identity": identity,
        "camera": camera,
        "modality": modality,
        "captured_at": (START + timedelta(minutes=number)).isoformat(),
        "attributes": {"source": "drawn"},
    }
