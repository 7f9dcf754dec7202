"""Damaged files: an index snapshot is made anew without a word, a database is never served."""

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

from server.gallery.types import Vectors
from server.settings import Settings
from tests.faults.hurried import hurried
from tests.faults.process import Server
from tests.server.conftest import serving
from tests.server.jobs.uploads import ndjson, unit_vectors
from tests.server.standin import write_model

_COUNT = 100
_VECTORS = unit_vectors(_COUNT)
_QUERY = unit_vectors(1, seed=99)[0]

Damage = Callable[[Path], object]


@contextmanager
def _server(folder: Path) -> Iterator[TestClient]:
    """A server that makes snapshots of small galleries."""
    settings = Settings(data_dir=folder / "data", model_dir=folder / "zoo", device="cpu", threads=1, auth="off")
    with hurried(), serving(settings) as client:
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


def _check(client: TestClient, vectors: Vectors, gone: str | None = None) -> None:
    """Searches equal brute force over these, without those of identity ``gone``."""
    facts = client.get("/readyz").json()["galleries"]["g"]
    assert facts["store_sequence"] == facts["index_sequence"]
    body = {"vector": _QUERY.tolist(), "modality": "infrared", "query": {"k": 1000}}
    found = client.post("/v1/galleries/g/search", json=body).json()["hits"]
    scores = vectors.astype(np.float64) @ _QUERY.astype(np.float64)
    expected = [number for number in np.argsort(-scores).tolist() if f"p{number % 5}" != gone]
    assert [hit["item"]["id"] for hit in found] == [f"{number:03}" for number in expected]
    assert np.allclose([hit["score"] for hit in found], scores[expected], atol=1e-6)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model and the data of a server that was stopped: a gallery, and its snapshot."""
    folder = tmp_path_factory.mktemp("filled")
    write_model(folder / "zoo" / "standin")
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


def _unused(caplog: pytest.LogCaptureFixture) -> bool:
    return any("its snapshot is not used" in record.getMessage() for record in caplog.records)


def test_a_sound_snapshot_is_used(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert {path.name.split("-")[0] for path in _index_files(folder)} == {"facts", "manifest.json", "vectors"}
    with _server(folder) as client:
        _check(client, _VECTORS)
    assert not _unused(caplog)


@pytest.mark.parametrize(
    ("file", "damage"),
    [("vectors", _flip), ("facts", _truncate), ("vectors", Path.unlink), ("manifest", _flip)],
    ids=["flipped", "truncated", "missing", "another manifest"],
)
def test_a_damaged_snapshot_is_made_anew(
    folder: Path, file: str, damage: Damage, caplog: pytest.LogCaptureFixture
) -> None:
    damage(next(path for path in _index_files(folder) if path.name.startswith(file)))
    with _server(folder) as client:
        _check(client, _VECTORS)
    assert _unused(caplog)
    caplog.clear()
    with _server(folder) as client:
        _check(client, _VECTORS)
    assert not _unused(caplog)


@pytest.mark.parametrize("which", ["earlier", "later"])
def test_a_snapshot_of_another_moment_gives_the_present(
    folder: Path, filled: Path, which: str, caplog: pytest.LogCaptureFixture
) -> None:
    more = np.concatenate([_VECTORS, unit_vectors(7, seed=3)])
    with _server(folder) as client:
        _put(client, more[_COUNT:], _COUNT)
        assert client.delete("/v1/galleries/g/items", params={"identity": "p2"}).json()["deleted"] == 21
    # The index of one moment beside the database of the other, as a backup of parts would leave them.
    stale = "index" if which == "earlier" else "vireid.db"
    for path in (folder / "data").glob(f"{stale}*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for path in (filled / "data").glob(f"{stale}*"):
        (shutil.copytree if path.is_dir() else shutil.copy)(path, folder / "data" / path.name)
    with _server(folder) as client:
        if which == "earlier":
            _check(client, more, gone="p2")
        else:
            _check(client, _VECTORS)
    assert _unused(caplog) == (which == "later")


def _flip_vector(database: Path) -> None:
    content, sent = database.read_bytes(), _VECTORS[17].astype(np.float64)
    place = content.find((sent / np.linalg.norm(sent)).astype("<f4").tobytes())
    assert place > 0
    _flip(database, place + 33)


def _overwrite_page(database: Path) -> None:
    """Any page that is in use; which of them is told where the test fails."""
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
    for path in _index_files(folder):  # which would be read in place of the vectors of the database
        path.unlink()
    damage(folder / "data" / "vireid.db")
    before = {path: path.read_bytes() for path in (folder / "data").glob("vireid.db")}
    server = Server(folder / "data", folder / "zoo", folder / "output")
    served = []
    while server.process.is_alive():
        served += [
            status for path in ("/readyz", "/v1/galleries", "/v1/galleries/g") for status in _asked(server, path)
        ]
    assert server.exit_code() == 2, server.output
    assert set(served) <= {503}
    message = " ".join(server.output.split())
    assert "the server cannot start" in message
    assert finding in message
    assert "backup" in message
    assert {path: path.read_bytes() for path in (folder / "data").glob("vireid.db")} == before


def _asked(server: Server, path: str) -> list[int]:
    """The status of an answer, if there is one."""
    url = server.found()
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
