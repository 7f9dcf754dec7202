"""Re-embedding a gallery in use: searches see either all old or all new vectors, and no vectors are left over."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from sqlalchemy import text

from models.card import Modality
from server.embedding.engine import Engine
from server.jobs import reembed
from server.storage.sql_store import SqlStore
from tests.server.api.test_imports import finish
from tests.server.calls import add, add_people, check_problem, search
from tests.server.conftest import Start
from tests.server.image_files import crop
from tests.server.jobs.uploads import vector_rows
from tests.server.jobs.workers import wait_for_dead_worker
from tests.server.stub_model import HEIGHT, WIDTH, StubModel, write_model

PEOPLE = range(10)
PATIENCE_S = 20.0


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models; ``old`` is the default."""
    directory = tmp_path_factory.mktemp("zoo")
    write_model(directory / "old")
    write_model(directory / "new", seed=1)
    return directory


@pytest.fixture(autouse=True)
def _small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reembed, "GROUP", 4)


@pytest.fixture
def server(start: Start) -> Iterator[TestClient]:
    """A server with a gallery ``g`` of ten people."""
    with start(model="old") as client:
        fill(client)
        yield client


def fill(client: TestClient) -> None:
    assert client.post("/v1/galleries", json={"name": "g"}).status_code == 201
    add_people(client, "g", PEOPLE, Modality.VISIBLE)


def store_of(client: TestClient) -> SqlStore:
    store: SqlStore = client.app.state.service.galleries._store  # type: ignore[attr-defined]
    return store


def begin(client: TestClient, name: str = "g", model: str = "new") -> Any:
    return client.post(f"/v1/galleries/{name}/reembed", json={"model": model})


def expected(client: TestClient, id: str, modality: Modality = Modality.VISIBLE, seed: int = 1) -> Any:
    """Return the embedding of an item's thumbnail by the NumPy model."""
    image = Image.open(io.BytesIO(client.get(f"/v1/galleries/g/items/{id}/image").content)).convert("RGB")
    if modality is Modality.INFRARED:
        image = image.convert("L").convert("RGB")
    pixels = np.asarray(image.resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR))
    return StubModel(seed).embed(pixels[None], np.array([modality.index]))[0]


def vectors(client: TestClient) -> dict[str, Any]:
    with store_of(client).dump("g") as (_, items):
        return {new.item.id: new.vector for new in items}


def tables(client: TestClient) -> tuple[int, int]:
    """Return the number of vectors in each table."""
    with store_of(client).engine.connect() as connection:
        one, other = (connection.scalar(text(f"select count(*) from {t}")) for t in ("vectors", "other_vectors"))
    return one or 0, other or 0


def model_of(client: TestClient) -> str:
    model: str = client.get("/v1/galleries/g").json()["model"]
    return model


@pytest.fixture
def pause(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Event, Event]]:
    """Pause a job at its second group; yields the events "reached" and "may continue"."""
    arrived, go = Event(), Event()
    real, calls = reembed._embed, []

    def held(name: str, engine: Engine, group: Any) -> Any:
        calls.append(group)
        if len(calls) == 2:
            arrived.set()
            assert go.wait(PATIENCE_S)
        return real(name, engine, group)

    monkeypatch.setattr(reembed, "_embed", held)
    yield arrived, go
    go.set()


def test_reembedding_binds_the_gallery_to_the_other_model(server: TestClient) -> None:
    add(server, "g", [crop(3, Modality.INFRARED)], [{"id": "i3", "modality": "infrared"}])
    server.put("/v1/aliases/latest", json={"gallery": "g"})
    before = server.get("/v1/galleries/g").json()
    job = finish(server, begin(server, "latest"))
    assert (job["state"], job["kind"], job["gallery"], job["total"], job["done"]) == (
        "succeeded",
        "reembed",
        "g",
        11,
        11,
    )
    after = server.get("/v1/galleries/latest").json()
    assert after == before | {"model": "new", "fingerprint": StubModel(1).fingerprint}
    found = vectors(server)
    assert len(found) == 11
    for id, vector in found.items():
        modality = Modality.INFRARED if id == "i3" else Modality.VISIBLE
        np.testing.assert_allclose(vector, expected(server, id, modality), atol=1e-5)
    answer = search(server, "latest", [crop(5, seed=7)], "visible", k=20).json()
    assert (answer["model"], answer["hits"][0]["item"]["id"], len(answer["hits"])) == ("new", "p5", 11)
    assert tables(server) == (0, 11)
    assert server.get("/readyz").status_code == 200
    check_problem(begin(server), 422, "invalid-request")
    assert finish(server, begin(server, model="old"))["state"] == "succeeded"
    assert tables(server) == (11, 0)


def test_concurrent_writes_are_kept_and_erasures_leave_no_vector(
    server: TestClient, pause: tuple[Event, Event]
) -> None:
    arrived, go = pause
    answer = begin(server)
    assert arrived.wait(PATIENCE_S)
    assert tables(server) == (10, 4)
    add_people(server, "g", [20, 21], Modality.VISIBLE)
    add(server, "g", [crop(30)], [{"id": "p0", "modality": "visible"}])  # p0 was already re-embedded
    assert server.patch("/v1/galleries/g/items/p9", json={"camera": "c9"}).status_code == 200
    receipt = server.delete("/v1/galleries/g/items", params={"identity": "p2"}).json()["receipt"]
    assert (receipt["items"], receipt["vectors"]) == (1, 2)  # the old one and the new one
    assert server.delete("/v1/galleries/g/items/p8").status_code == 204
    assert tables(server) == (10, 2)
    assert search(server, "g", [crop(5, seed=7)], "visible").json()["model"] == "old"
    go.set()
    assert finish(server, answer)["state"] == "succeeded"
    found = vectors(server)
    assert found.keys() == {f"p{n}" for n in (0, 1, 3, 4, 5, 6, 7, 9, 20, 21)}
    for id, vector in found.items():
        np.testing.assert_allclose(vector, expected(server, id), atol=1e-5)
    hits = search(server, "g", [crop(30)], "visible", k=50).json()["hits"]
    assert (len(hits), hits[0]["item"]["id"]) == (10, "p0")
    assert {hit["item"]["camera"] for hit in hits if hit["item"]["id"] == "p9"} == {"c9"}
    assert tables(server) == (0, 10)


def test_cancelled_reembedding_leaves_no_vectors(server: TestClient, pause: tuple[Event, Event]) -> None:
    arrived, go = pause
    before = {id: vector.tobytes() for id, vector in vectors(server).items()}
    answer = begin(server)
    assert arrived.wait(PATIENCE_S)
    assert server.post(f"/v1/jobs/{answer.json()['id']}/cancel").json()["state"] == "cancelled"
    go.set()
    second = finish(server, begin(server))  # begins when the first one is cleared away
    assert (second["state"], second["done"]) == ("succeeded", len(PEOPLE))  # with nothing of the first one's
    assert finish(server, begin(server, model="old"))["state"] == "succeeded"
    assert vectors(server).keys() == before.keys()


def test_missing_thumbnail_is_reported_before_the_job_starts(start: Start) -> None:
    with start(model="old") as client:
        fill(client)
        rows = vector_rows(3)
        assert client.post("/v1/galleries/g/vectors", json={"items": rows}).status_code == 201
        problem = check_problem(begin(client), 409, "thumbnails-missing")
        assert problem["detail"] == "3 items of gallery g have no thumbnail to embed; nothing was changed."
        check_problem(begin(client, model="none"), 404, "model-not-found")
        assert client.get("/v1/jobs").json()["jobs"] == []


def test_item_added_without_a_thumbnail_fails_the_running_job(server: TestClient, pause: tuple[Event, Event]) -> None:
    arrived, go = pause
    answer = begin(server)
    assert arrived.wait(PATIENCE_S)
    assert server.post("/v1/galleries/g/vectors", json={"items": vector_rows(1)}).status_code == 201
    go.set()
    job = finish(server, answer)
    assert (job["state"], model_of(server)) == ("failed", "old")
    assert "1 items of gallery g have no thumbnail" in job["error"]


class Crashed(BaseException):
    """Simulates a crash of the server."""


MOMENTS = [
    ("store_reembedded", True),
    ("switch_model", True),
    *(pytest.param(moment, done, marks=pytest.mark.slow)
      for moment, done in (("begin_reembedding", False), ("begin_reembedding", True), ("store_reembedded", False),
                           ("switch_model", False), ("end_reembedding", False), ("end_reembedding", True))),
]  # fmt: skip


@pytest.mark.parametrize(("moment", "done"), MOMENTS)
def test_job_resumes_after_a_crash_at_any_step(
    start: Start, monkeypatch: pytest.MonkeyPatch, moment: str, done: bool
) -> None:
    """The worker dies silently before or after a step; the next start finds the job running."""
    real, reached = getattr(SqlStore, moment), Event()

    def dying(self: SqlStore, *args: Any) -> None:
        if done:
            real(self, *args)
        reached.set()
        raise Crashed

    with start(model="old") as client:
        fill(client)
        with monkeypatch.context() as patch:
            patch.setattr("threading.excepthook", lambda _: None)
            patch.setattr(SqlStore, moment, dying)
            id = begin(client).json()["id"]
            assert reached.wait(PATIENCE_S)
            service = client.app.state.service  # type: ignore[attr-defined]
            wait_for_dead_worker(service.jobs, PATIENCE_S)
            assert service.jobs.get(id).state == "running"
            answer = search(client, "g", [crop(5, seed=7)], "visible").json()
            switched = moment == "end_reembedding" or (moment == "switch_model" and done)
            assert (answer["model"], answer["hits"][0]["item"]["id"]) == ("new" if switched else "old", "p5")
    with start(model="old") as client:
        events = client.get(f"/v1/jobs/{id}/events")
        assert '"state":"succeeded"' in events.text.replace(" ", "")
        assert model_of(client) == "new"
        for name, vector in vectors(client).items():
            np.testing.assert_allclose(vector, expected(client, name), atol=1e-5)
        assert tables(client) == (0, 10)
