"""Requests and assertions that several tests share."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Event
from typing import Any

from fastapi.testclient import TestClient
from httpx2 import Response

from models.card import Modality
from server.embedding.batcher import Priority
from tests.server.image_files import crop

__all__ = ["add", "add_people", "check_problem", "nothing_decoded", "search"]

Fields = Mapping[str, object]


@contextmanager
def nothing_decoded(client: TestClient, priority: Priority) -> Iterator[None]:
    """Block every decoder of the given priority during the block."""
    released = Event()
    decoders = client.app.state.service.models._decoders[priority]  # type: ignore[attr-defined]
    waiting = [decoders.submit(released.wait) for _ in range(200)]
    try:
        yield
    finally:
        released.set()
    assert all(future.result() for future in waiting)


def check_problem(response: Response, status: int, kind: str) -> dict[str, Any]:
    """Assert that a response is a problem of the given status and type, and return its body."""
    body: dict[str, Any] = response.json()
    assert response.headers["content-type"] == "application/problem+json"
    assert (response.status_code, body["status"], body["type"]) == (status, status, f"/problems/{kind}"), body
    assert body["title"]
    assert body["detail"]
    assert body["instance"] == response.request.url.path
    assert body["request_id"] == response.headers["x-request-id"]
    assert "server-timing" in response.headers
    assert not any(word in response.text for word in ("Traceback", ".py", "PIL", "pydantic", "sqlite"))
    return body


def add(client: TestClient, gallery: str, images: Sequence[bytes], items: Sequence[object], **options: Any) -> Response:
    """POST images with their metadata."""
    files = [("images", (f"{i}.png", image)) for i, image in enumerate(images)]
    return client.post(f"/v1/galleries/{gallery}/items", files=files, data={"items": json.dumps(items)}, **options)


def add_people(client: TestClient, gallery: str, people: Sequence[int], modality: Modality, **fields: object) -> None:
    """Add one crop of each drawn person, with the id and identity ``pN``."""
    items = [{"id": f"p{i}", "identity": f"p{i}", "modality": modality.value, **fields} for i in people]
    assert add(client, gallery, [crop(i, modality, seed=1) for i in people], items).status_code == 201


def search(
    client: TestClient, gallery: str, images: Sequence[bytes], modality: object = "auto", **query: object
) -> Response:
    """POST a search by images; ``query`` by keyword."""
    files = [("images", (f"{i}.png", image)) for i, image in enumerate(images)]
    data = {"modality": modality, "query": json.dumps(query)}
    return client.post(f"/v1/galleries/{gallery}/search", files=files, data=data)
