"""A server on a full disk reports it, still reads, deletes and starts, and recovers once there is space."""

from __future__ import annotations

import json
import os
import random
import shutil
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from models.card import Modality
from server.domain.types import Vectors
from server.settings import Settings
from tests.server.calls import check_problem
from tests.server.conftest import serving
from tests.server.image_files import crop, encode
from tests.server.jobs.uploads import ndjson, tar, unit_vectors
from tests.server.stub_model import write_model
from tests.small_disk import OTHERS, fill, small_disk

_LARGE = {f"note {number}": "x" * 250 for number in range(30)}
"""Attributes so large that few items fill a disk."""
_PEOPLE = 5
_ROOM = 1 << 20
"""Free bytes that an import has besides its upload."""
_QUERY = unit_vectors(1, seed=99)[0]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", 16) as folder:
        write_model(tmp_path / "zoo" / "stub")
        yield folder


def _server(disk: Path) -> AbstractContextManager[TestClient]:
    return serving(Settings(data_dir=disk / "data", model_dir=disk.parent / "zoo", device="cpu", threads=1, auth="off"))


def _rows(start: int, vectors: Vectors) -> list[dict[str, Any]]:
    return [
        {
            "id": f"{number:05}",
            "modality": "infrared",
            "identity": f"p{number % _PEOPLE}",
            "attributes": _LARGE,
            "vector": vector.tolist(),
        }
        for number, vector in enumerate(vectors, start)
    ]


def _put(client: TestClient, rows: list[dict[str, Any]]) -> Any:
    headers = {"content-type": "application/x-ndjson"}
    return client.post("/v1/galleries/g/vectors", content=ndjson(rows), headers=headers)


def _fill(client: TestClient, disk: Path) -> dict[str, Vectors]:
    """Write until the disk is full; return the stored vectors by id."""
    stored: dict[str, Vectors] = {}
    size = 256
    while size:
        rows = _rows(len(stored), unit_vectors(size, seed=len(stored)))
        answer = _put(client, rows)
        if answer.status_code == 201:
            stored |= {row["id"]: np.array(row["vector"], np.float32) for row in rows}
        else:
            body = check_problem(answer, 507, "storage-full")
            assert "disk" in body["detail"]
            size //= 2
            if size == 16:
                fill(disk)
    return stored


def _check(client: TestClient, stored: dict[str, Vectors]) -> None:
    """Assert that the server holds these items, and that searches it can record equal brute force over them."""
    ready = client.get("/readyz")
    assert ready.status_code == 200 or "the disk of the data directory is full" in ready.text, ready.text
    assert client.get("/v1/galleries/g").json()["items"] == len(stored)
    query = {"vector": _QUERY.tolist(), "modality": "visible", "query": {"k": 30}}
    answer = client.post("/v1/galleries/g/search", json=query)
    if ready.status_code == 503 and answer.status_code == 503:  # a search that cannot be recorded is refused
        assert "audit log cannot be written" in answer.json()["detail"]
        return
    assert answer.status_code == 200, answer.text
    hits = {hit["item"]["id"]: hit["score"] for hit in answer.json()["hits"]}
    scores = {id: float(np.dot(_QUERY.astype(np.float64), vector)) for id, vector in stored.items()}
    best = sorted(scores, key=lambda id: -scores[id])[:30]
    assert list(hits) == best
    assert np.allclose([hits[id] for id in best], [scores[id] for id in best], atol=1e-6)


def test_a_full_disk_refuses_only_writes_and_searches_it_cannot_record(disk: Path) -> None:
    with _server(disk) as client:
        assert client.post("/v1/galleries", json={"name": "g"}).status_code == 201
        stored = _fill(client, disk)
        assert len(stored) > 100
        assert client.get("/readyz").status_code == 503
        _check(client, stored)
        sent = {"items": json.dumps([{"id": "crop", "modality": "infrared"}])}
        files = [("images", ("crop.png", crop(1, Modality.INFRARED)))]
        for _ in range(20):  # a page may still have room for one
            if client.post("/v1/galleries/g/items", files=files, data=sent).status_code == 507:
                break
            assert client.delete("/v1/galleries/g/items/crop").status_code == 204
            fill(disk)
        _check(client, stored)

    with _server(disk) as client:  # a start on the full disk
        fill(disk)
        _check(client, stored)
        assert client.delete("/v1/galleries/g/items/00003").status_code == 204
        del stored["00003"]
        answer = client.delete("/v1/galleries/g/items", params={"identity": "p1"})
        assert answer.status_code == 200, answer.text
        removed = [id for id in stored if int(id) % _PEOPLE == 1]
        assert answer.json()["deleted"] == len(removed)
        for id in removed:
            del stored[id]
        _check(client, stored)
        vectors = unit_vectors(8, seed=7)  # in the room that the deleted ones had
        assert _put(client, _rows(90_000, vectors)).status_code == 201
        stored |= {f"{number:05}": vector for number, vector in enumerate(vectors, 90_000)}
        _check(client, stored)

    (disk / OTHERS).unlink()
    with _server(disk) as client:
        assert client.get("/readyz").status_code == 200
        _check(client, stored)
        vectors = unit_vectors(32, seed=8)
        assert _put(client, _rows(95_000, vectors)).status_code == 201
        _check(client, stored | {f"{number:05}": vector for number, vector in enumerate(vectors, 95_000)})


@pytest.mark.parametrize("kind", ["application/x-ndjson", "application/x-tar"])
def test_an_import_beyond_the_disk_fails_and_leaves_complete_items(disk: Path, kind: str) -> None:
    draw, vectors = np.random.default_rng(0), unit_vectors(500)
    if kind.endswith("tar"):
        body = tar({f"{number:05}": encode(draw.integers(0, 256, (48, 24, 3), np.uint8)) for number in range(500)})
    else:
        body = ndjson(_rows(0, vectors))
    with _server(disk) as client:
        assert client.post("/v1/galleries", json={"name": "g"}).status_code == 201
        with (disk / OTHERS).open("wb") as others:
            os.posix_fallocate(others.fileno(), 0, shutil.disk_usage(disk).free - len(body) - _ROOM)
        answer = client.post("/v1/galleries/g/imports", content=body, headers={"content-type": kind})
        assert answer.status_code == 202, answer.text
        while (job := client.get(answer.headers["location"]).json())["state"] in ("queued", "running"):
            time.sleep(0.05)
        assert (job["state"], job["error"]) == ("failed", "The disk of the data directory is full; nothing was stored.")
        items = client.get("/v1/galleries/g/items", params={"limit": 1000}).json()["items"]
        assert job["done"] <= len(items) < 500
        for item in random.sample(items, min(10, len(items))):
            assert client.post("/v1/galleries/g/search", json={"item_id": item["id"]}).status_code == 200
            image = client.get(f"/v1/galleries/g/items/{item['id']}/image")
            assert image.status_code == (200 if kind.endswith("tar") else 404)
        if kind.endswith("ndjson"):
            _check(client, {item["id"]: vectors[int(item["id"])] for item in items})
        assert list((disk / "data" / "jobs").iterdir()) == []
