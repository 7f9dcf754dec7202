"""Erasure of a person: the receipt is verified, kept, and names no person."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from fastapi.testclient import TestClient

from server.api.paging import encode_cursor
from tests.server.calls import check_problem
from tests.server.conftest import Start
from tests.server.image_files import crop

METADATA = {"modality": "visible", "identity": "jane.doe"}


def enrol(client: TestClient, gallery: str, dimension: int, count: int) -> list[bytes]:
    """Add items of one person; return the bytes of their vectors as stored on disk."""
    generator = np.random.default_rng(3)
    vectors = generator.standard_normal((count, dimension))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    items = [{"id": f"jane-{n}", "vector": vector.tolist(), **METADATA} for n, vector in enumerate(vectors)]
    assert client.post(f"/v1/galleries/{gallery}/vectors", json={"items": items}).status_code == 201
    return [vector.astype("<f4").tobytes() for vector in vectors]


def everything_under(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_receipt_counts_the_erased_data_and_is_kept(start: Start, tmp_path: Path) -> None:
    with start() as client:
        details = client.post("/v1/galleries", json={"name": "g"}).json()
        vectors = enrol(client, "g", details["dimension"], 3)
        data = {"items": '[{"id": "jane-photo", "modality": "visible", "identity": "jane.doe"}]'}
        assert client.post("/v1/galleries/g/items", data=data, files={"images": crop(1)}).status_code == 201
        assert vectors[0] in everything_under(tmp_path / "data")

        erased = client.delete("/v1/galleries/g/items", params={"identity": "jane.doe"}).json()
        assert erased["deleted"] == 4
        receipt = erased["receipt"]
        assert (receipt["items"], receipt["vectors"], receipt["thumbnails"]) == (4, 4, 1)
        ids = "jane-0\njane-1\njane-2\njane-photo"
        assert receipt["ids_sha256"] == hashlib.sha256(ids.encode()).hexdigest()
        assert receipt["left"] == {
            "store": 0,
            "memory": 0,
            "snapshot": 0,
            "log": False,
            "replicas": False,
            "backups": None,
            "jobs": 0,
        }
        held = everything_under(tmp_path / "data")
        assert not [vector for vector in vectors if vector in held]
        assert b"jane" not in str(receipt).encode()
    with start() as client:
        assert client.get(f"/v1/erasures/{receipt['id']}").json() == receipt
        assert client.get("/v1/erasures").json()["receipts"] == [receipt]
        client.delete("/v1/galleries/g")
        assert client.get(f"/v1/erasures/{receipt['id']}").json() == receipt
        assert client.get("/v1/erasures/none").status_code == 404


def test_cursor_of_no_receipt_is_invalid(client: TestClient) -> None:
    for cursor in ("", encode_cursor("erasure_none")):
        problem = check_problem(client.get("/v1/erasures", params={"cursor": cursor}), 422, "invalid-request")
        assert [error["field"] for error in problem["errors"]] == ["cursor"]
