"""Damaged files: an index snapshot is rebuilt, a damaged database is never served."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

import numpy as np
import pytest
from fastapi.testclient import TestClient

from server.domain.types import Vectors
from server.settings import Settings
from tests.faults.fast_maintenance import fast_maintenance
from tests.faults.process import Server
from tests.server.conftest import serving
from tests.server.jobs.uploads import ndjson, unit_vectors
from tests.server.stub_model import write_model

_COUNT = 100
_VECTORS = unit_vectors(_COUNT)
_QUERY = unit_vectors(1, seed=99)[0]

Damage = Callable[[Path], object]


@contextmanager
def _server(folder: Path) -> Iterator[TestClient]:
    """Run a server that writes snapshots of small galleries."""
    settings = Settings(data_dir=folder / "data", model_dir=folder / "zoo", device="cpu", threads=1, auth="off")
    with fast_maintenance(), serving(settings) as client:
        yield client


def _put(client: TestClient, vectors: Vectors, first: int = 0) -> None:
    rows = [
        {"id": f"{number:03}", "modality": "infrared", "identity": f"p{number % 5}", "vector": vector.tolist()}
        for number, vector in enumerate(vectors, first)
    ]
    answer = client.post(
        "/v1/galleries/g/vectors", content=ndjson(rows), headers={"content-type": "application/x-ndjson"}
    )
    assert answer.status_code == 201


def _check(client: TestClient, vectors: Vectors, deleted_identity: str | None = None) -> None:
    """Assert that searches equal brute force over these vectors, without those of the deleted identity."""
    details = client.get("/readyz").json()["galleries"]["g"]
    assert details["store_sequence"] == details["index_sequence"]
    body = {"vector": _QUERY.tolist(), "modality": "infrared", "query": {"k": 1000}}
    found = client.post("/v1/galleries/g/search", json=body).json()["hits"]
    scores = vectors.astype(np.float64) @ _QUERY.astype(np.float64)
    expected = [number for number in np.argsort(-scores).tolist() if f"p{number % 5}" != deleted_identity]
    assert [hit["item"]["id"] for hit in found] == [f"{number:03}" for number in expected]
    assert np.allclose([hit["score"] for hit in found], scores[expected], atol=1e-6)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model and the data of a stopped server: a gallery and its snapshot."""
    folder = tmp_path_factory.mktemp("filled")
    write_model(folder / "zoo" / "stub")
    with _server(folder) as client:
        assert client.post("/v1/galleries", json={"name": "g"}).status_code == 201
        _put(client, _VECTORS)
    return folder


@pytest.fixture
def folder(filled: Path, tmp_path: Path) -> Path:
    """A copy of that folder."""
    return Path(shutil.copytree(filled, tmp_path / "copy"))


def _index_files(folder: Path) -> list[Path]:
    (snapshot,) = (folder / "data" / "index").iterdir()
    return sorted(snapshot.iterdir())


def _flip(path: Path, place: int | None = None) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if place is None else place] ^= 0x10
    path.write_bytes(content)


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def _snapshot_was_rejected(caplog: pytest.LogCaptureFixture) -> bool:
    return any("its snapshot is not used" in record.getMessage() for record in caplog.records)


def test_intact_snapshot_is_used(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert {path.name.split("-")[0] for path in _index_files(folder)} == {"facts", "manifest.json", "vectors"}
    with _server(folder) as client:
        _check(client, _VECTORS)
    assert not _snapshot_was_rejected(caplog)


@pytest.mark.parametrize(
    ("file", "damage"),
    [("vectors", _flip), ("facts", _truncate), ("vectors", Path.unlink), ("manifest", _flip)],
    ids=["flipped", "truncated", "missing", "another manifest"],
)
def test_a_damaged_snapshot_is_rebuilt(
    folder: Path, file: str, damage: Damage, caplog: pytest.LogCaptureFixture
) -> None:
    damage(next(path for path in _index_files(folder) if path.name.startswith(file)))
    with _server(folder) as client:
        _check(client, _VECTORS)
    assert _snapshot_was_rejected(caplog)
    caplog.clear()
    with _server(folder) as client:
        _check(client, _VECTORS)
    assert not _snapshot_was_rejected(caplog)


@pytest.mark.parametrize("which", ["earlier", "later"])
def test_a_snapshot_of_an_earlier_moment_is_brought_up_to_date(
    folder: Path, filled: Path, which: str, caplog: pytest.LogCaptureFixture
) -> None:
    more = np.concatenate([_VECTORS, unit_vectors(7, seed=3)])
    with _server(folder) as client:
        _put(client, more[_COUNT:], _COUNT)
        assert client.delete("/v1/galleries/g/items", params={"identity": "p2"}).json()["deleted"] == 21
    # Combine the index of one state with the database of another, as a partial backup would.
    stale = "index" if which == "earlier" else "vireid.db"
    for path in (folder / "data").glob(f"{stale}*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for path in (filled / "data").glob(f"{stale}*"):
        (shutil.copytree if path.is_dir() else shutil.copy)(path, folder / "data" / path.name)
    with _server(folder) as client:
        if which == "earlier":
            _check(client, more, deleted_identity="p2")
        else:
            _check(client, _VECTORS)
    assert _snapshot_was_rejected(caplog) == (which == "later")


def _flip_vector(database: Path) -> None:
    content, sent = database.read_bytes(), _VECTORS[17].astype(np.float64)
    place = content.find((sent / np.linalg.norm(sent)).astype("<f4").tobytes())
    assert place > 0
    _flip(database, place + 33)


def _overwrite_page(database: Path) -> None:
    """Overwrite a random page; its number is printed if the test fails."""
    number = random.randrange(1, database.stat().st_size // 16384)
    print("page", number)  # noqa: T201
    with database.open("r+b") as file:
        file.seek(number * 16384)
        file.write(random.randbytes(16384))


def _truncate_pages(database: Path) -> None:
    with database.open("r+b") as file:
        file.truncate(database.stat().st_size // 2 // 16384 * 16384)


@pytest.mark.parametrize(
    ("damage", "finding"),
    [
        (_flip_vector, "the vector of item 017"),
        (_overwrite_page, "is damaged"),
        (_truncate_pages, "is damaged"),
        (lambda database: database.write_bytes(b""), "is damaged"),
        (Path.unlink, "is missing"),
    ],
    ids=["a bit of a vector", "a page", "half of it", "all of it", "no file"],
)
def test_a_damaged_database_is_not_served(folder: Path, damage: Damage, finding: str) -> None:
    for path in _index_files(folder):  # so that vectors are read from the database
        path.unlink()
    damage(folder / "data" / "vireid.db")
    before = {path: path.read_bytes() for path in (folder / "data").glob("vireid.db")}
    server = Server(folder / "data", folder / "zoo", folder / "output")
    served = []
    while server.process.is_alive():
        served += [
            status for path in ("/readyz", "/v1/galleries", "/v1/galleries/g") for status in _statuses(server, path)
        ]
    assert server.exit_code() == 2, server.output
    assert set(served) <= {503}
    message = " ".join(server.output.split())
    assert "the server cannot start" in message
    assert finding in message
    assert "backup" in message
    assert {path: path.read_bytes() for path in (folder / "data").glob("vireid.db")} == before


def _statuses(server: Server, path: str) -> list[int]:
    """Return the status of the response, if there is one."""
    url = server.find_url()
    if url is None:
        return []
    try:
        with urlopen(f"{url}{path}") as answer:
            status: int = answer.status
            return [status]
    except HTTPError as error:
        error.close()
        return [error.code]
    except (URLError, HTTPException, OSError):
        return []
