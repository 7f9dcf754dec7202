"""A whole server answers every input of the corpus with a documented response and continues to serve."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from httpx2 import Client, Response

from models.card import Modality
from server.jobs import runner
from server.runner import in_background
from server.settings import Settings
from tests.corpus.archives import Upload, hostile_archives
from tests.corpus.images import hostile_images
from tests.server.image_files import crop

SEED = 17
SHORT = {"images": 170, "archives": 30}
LONG = {"images": 4_300, "archives": 700}
PATIENCE_S = 90
"""After which a response counts as a hang; far above any limit of the server on decoding or reading."""


@pytest.fixture
def server(model_dir: Path, tmp_path: Path) -> Iterator[Client]:
    settings = Settings(
        data_dir=tmp_path / "data", model_dir=model_dir, device="cpu", threads=1, port=0, max_image_bytes=2**21
    )
    with in_background(settings) as url, Client(base_url=url, timeout=PATIENCE_S) as client:
        assert client.post("/v1/galleries", json={"name": "g"}).status_code == 201
        yield client


class Documented:
    """The statuses of each operation by the OpenAPI document of the server."""

    def __init__(self, client: Client) -> None:
        self._paths: dict[str, Any] = client.get("/openapi.json").json()["paths"]

    def check(self, response: Response, template: str) -> int:
        """Assert that the response is a documented one, and below 500."""
        described = self._paths[template][response.request.method.lower()]["responses"]
        status = response.status_code
        assert str(status) in described, (status, response.text)
        assert status < 500, response.text
        if status >= 400:
            assert response.headers["content-type"] == "application/problem+json"
            assert len(response.content) < 8_192, response.text[:200]
        return status


def check_images(client: Client, images: Iterator[bytes]) -> Counter[int]:
    """Send each image as a crop to embed, to search with or to store; return how often each status was answered."""
    documented, counts = Documented(client), Counter[int]()
    for number, image in enumerate(images):
        files = [("images", ("x.png", image))]
        try:
            if number % 4 == 1:
                template = "/v1/galleries/{gallery}/search"
                answer = client.post("/v1/galleries/g/search", files=files, data={"modality": "auto"})
            elif number % 4 == 3:
                template = "/v1/galleries/{gallery}/items"
                items = json.dumps([{"id": f"i{number}", "modality": "auto"}])
                answer = client.post("/v1/galleries/g/items", files=files, data={"items": items})
            else:
                template = "/v1/embeddings"
                answer = client.post(template, files=files, data={"modality": "auto"})
            counts[documented.check(answer, template)] += 1
        except Exception as error:
            error.add_note(f"image {number} of the corpus, {len(image)} bytes, begins {image[:64]!r}")
            raise
    return counts


def check_archives(client: Client, uploads: Iterator[Upload]) -> Counter[str]:
    """Import each upload; return how often jobs ended in each state."""
    documented, counts = Documented(client), Counter[str]()
    template = "/v1/galleries/{gallery}/imports"
    for number, (kind, data) in enumerate(uploads):
        try:
            url = "/v1/galleries/g/imports"
            answer = client.post(url, content=data, headers={"content-type": kind}, params={"modality": "infrared"})
            assert documented.check(answer, template) == 202, answer.text
            address = answer.headers["location"]
            events = client.get(f"{address}/events").text
            job = json.loads(events.strip().splitlines()[-1].removeprefix("data: "))
            assert job["state"] in ("succeeded", "failed")
            assert job["error"] not in (runner._INTERNAL, runner._UNCLEAN), job
            failures = client.get(f"{address}/failures", params={"limit": 1000}).json()["failures"]
            assert all(failure["error"]["status"] < 500 for failure in failures), failures
            counts[job["state"]] += 1
        except Exception as error:
            error.add_note(f"archive {number} of the corpus: {kind}, {len(data)} bytes, begins {data[:64]!r}")
            raise
    return counts


def embedding(client: Client) -> list[float]:
    files = [("images", ("x.png", crop(1)))]
    answer = client.post("/v1/embeddings", files=files, data={"modality": Modality.VISIBLE.value})
    vector: list[float] = answer.json()["embeddings"][0]["vector"]
    return vector


def check_corpus(client: Client, images: int, archives: int) -> None:
    before = embedding(client)
    statuses = check_images(client, hostile_images(images, SEED))
    states = check_archives(client, hostile_archives(archives, SEED))
    assert statuses.total() == images
    assert states.total() == archives
    assert statuses.keys() >= {200, 413, 415, 422}, "the corpus has valid, too large, unknown and damaged images"
    assert states.keys() == {"succeeded", "failed"}
    assert client.get("/readyz").status_code == 200
    assert embedding(client) == pytest.approx(before)


def test_short_corpus_is_answered_as_documented(server: Client) -> None:
    check_corpus(server, **SHORT)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_long_corpus_is_answered_as_documented(server: Client) -> None:
    check_corpus(server, **LONG)


def test_corpus_depends_only_on_its_seed() -> None:
    assert list(hostile_images(40, 1)) == list(hostile_images(40, 1)) != list(hostile_images(40, 2))
