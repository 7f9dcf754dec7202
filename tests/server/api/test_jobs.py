"""Jobs over HTTP: visibility, events, cancellation, and survival of a restart."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from fastapi.testclient import TestClient

from server.jobs.runner import Context
from tests.server.api.test_imports import TAR, counts, finish, run, send
from tests.server.calls import check_problem
from tests.server.conftest import Start
from tests.server.image_files import crop
from tests.server.jobs.uploads import tar

PATIENCE_S = 30.0


class Gate:
    """Blocks every import of a server until it is opened."""

    def __init__(self, client: TestClient) -> None:
        self.reached, self._open = Event(), Event()
        kinds = client.app.state.service.jobs._handlers  # type: ignore[attr-defined]
        self._real = kinds["import"]
        kinds["import"] = self

    def run(self, context: Context) -> None:
        self.reached.set()
        assert self._open.wait(PATIENCE_S)
        self._real.run(context)

    def open(self) -> None:
        self._open.set()


@pytest.fixture
def held(start: Start) -> Iterator[tuple[TestClient, Gate]]:
    """A server with a gallery ``g`` whose imports are blocked by a gate."""
    with start() as client:
        client.post("/v1/galleries", json={"name": "g"})
        gate = Gate(client)
        yield client, gate
        gate.open()


def test_job_is_listed_and_its_event_stream_ends_with_it(held: tuple[TestClient, Gate]) -> None:
    client, gate = held
    answers = [send(client, "g", tar({f"{n}.png": crop(n)}), TAR) for n in range(3)]
    ids = [answer.json()["id"] for answer in answers]
    first = answers[0].json()
    assert (first["state"], first["total"], first["rate"], first["eta_s"]) == ("queued", None, None, None)
    assert gate.reached.wait(PATIENCE_S)
    assert [job["state"] for job in client.get("/v1/jobs").json()["jobs"]] == ["queued", "queued", "running"]
    assert [job["id"] for job in client.get("/v1/jobs", params={"state": "queued"}).json()["jobs"]] == ids[:0:-1]
    page = client.get("/v1/jobs", params={"limit": 2}).json()
    assert [job["id"] for job in page["jobs"]] == [ids[2], ids[1]]
    rest = client.get("/v1/jobs", params={"limit": 2, "cursor": page["next_cursor"]}).json()
    assert ([job["id"] for job in rest["jobs"]], rest["next_cursor"]) == ([ids[0]], None)
    gate.open()
    events = client.get(f"/v1/jobs/{ids[2]}/events")
    assert events.headers["content-type"].startswith("text/event-stream")
    states = [json.loads(line[6:])["state"] for line in events.text.splitlines() if line.startswith("data: ")]
    assert states[-1] == "succeeded"
    assert "succeeded" not in states[:-1]
    assert [counts(client.get(f"/v1/jobs/{id}").json()) for id in ids] == [("succeeded", 1, 1, 0, 0)] * 3
    again = client.get(f"/v1/jobs/{ids[0]}/events").text  # an ended job sends one final event
    assert again.count("data: ") == 1
    actions = [(e["action"], e["detail"].get("job")) for e in client.get("/v1/audit").json()["entries"]]
    assert {("job.create", ids[0]), ("job.end", ids[0])} <= set(actions)


def test_running_and_queued_jobs_can_be_cancelled(held: tuple[TestClient, Gate]) -> None:
    client, gate = held
    files = {f"{n}.png": crop(n) for n in range(4)}
    running, queued = (send(client, "g", tar(files), TAR).json()["id"] for _ in range(2))
    assert gate.reached.wait(PATIENCE_S)
    assert client.post(f"/v1/jobs/{queued}/cancel").json()["state"] == "cancelled"
    assert client.post(f"/v1/jobs/{running}/cancel").json()["state"] == "cancelled"
    gate.open()
    after = run(client, "g", tar({"z.png": crop(9)}), TAR)
    assert counts(after) == ("succeeded", 1, 1, 0, 0)
    job = client.get(f"/v1/jobs/{running}").json()
    assert (job["state"], job["done"]) == ("cancelled", 0)
    assert job["finished_at"] is not None
    for unknown in ("job_none", "x" * 64):
        check_problem(client.post(f"/v1/jobs/{unknown}/cancel"), 404, "job-not-found")
        check_problem(client.get(f"/v1/jobs/{unknown}"), 404, "job-not-found")
        check_problem(client.get(f"/v1/jobs/{unknown}/events"), 404, "job-not-found")
        check_problem(client.get(f"/v1/jobs/{unknown}/failures"), 404, "job-not-found")
    check_problem(client.get("/v1/jobs", params={"state": "odd"}), 422, "invalid-request")


def test_stopped_import_resumes_after_restart(start: Start) -> None:
    files = {f"{n:03}.png": crop(n) for n in range(5)}
    with start() as client:
        client.post("/v1/galleries", json={"name": "g"})
        gate = Gate(client)
        answer = send(client, "g", tar(files), TAR)
        assert gate.reached.wait(PATIENCE_S)
        client.app.state.service.jobs.stop()  # type: ignore[attr-defined]
        gate.open()
    with start() as client:
        assert counts(finish(client, answer)) == ("succeeded", 5, 5, 0, 0)


def test_import_never_writes_to_a_new_gallery_of_the_same_name(held: tuple[TestClient, Gate]) -> None:
    client, gate = held
    answer = send(client, "g", tar({"a.png": crop(1)}), TAR)
    assert client.delete("/v1/galleries/g").status_code == 204
    assert client.post("/v1/galleries", json={"name": "g"}).status_code == 201
    gate.open()
    job = finish(client, answer)
    assert (job["state"], job["error"]) == ("failed", "Gallery g does not exist.")
    assert client.get("/v1/galleries/g").json()["items"] == 0


def test_key_reaches_only_the_jobs_of_its_galleries(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    with start(auth="required") as client:
        admin = {"X-API-Key": capsys.readouterr().out.split()[-1]}
        for name in ("a", "b"):
            client.post("/v1/galleries", json={"name": name}, headers=admin)

        def key(scope: str) -> dict[str, str]:
            body = {"name": "k", "scopes": [scope], "galleries": ["a"]}
            return {"X-API-Key": client.post("/v1/keys", json=body, headers=admin).json()["secret"]}

        search, write = key("search"), key("write")
        headers = {"Content-Type": TAR}
        jobs: dict[str, Any] = {}
        for name in ("a", "b"):
            answer = client.post(f"/v1/galleries/{name}/imports", content=tar({}), headers=headers | admin)
            jobs[name] = answer.json()["id"]
        assert len(client.get("/v1/jobs", headers=admin).json()["jobs"]) == 2
        for caller in (search, write):
            assert [job["id"] for job in client.get("/v1/jobs", headers=caller).json()["jobs"]] == [jobs["a"]]
            assert client.get(f"/v1/jobs/{jobs['a']}", headers=caller).status_code == 200
            for path in ("", "/events", "/failures"):
                hidden = client.get(f"/v1/jobs/{jobs['b']}{path}", headers=caller)
                check_problem(hidden, 404, "job-not-found")
            check_problem(client.post(f"/v1/jobs/{jobs['b']}/cancel", headers=caller), 404, "job-not-found")
        check_problem(client.post(f"/v1/jobs/{jobs['a']}/cancel", headers=search), 403, "forbidden")
        assert client.post(f"/v1/jobs/{jobs['a']}/cancel", headers=write).status_code == 200
        refused = client.post("/v1/galleries/b/imports", content=tar({}), headers=headers | write)
        check_problem(refused, 403, "forbidden")
        refused = client.post("/v1/galleries/a/imports", content=tar({}), headers=headers | search)
        check_problem(refused, 403, "forbidden")
        check_problem(client.get("/v1/jobs"), 401, "unauthorized")


def test_aborted_upload_leaves_nothing_behind(start: Start, tmp_path: Path) -> None:
    with start() as client:
        client.post("/v1/galleries", json={"name": "g"})
        app, messages = client.app, iter([b"x" * 100_000, None])

        async def receive() -> dict[str, Any]:
            block = next(messages)
            return {"type": "http.request", "body": block, "more_body": True} if block else {"type": "http.disconnect"}

        sent: list[Any] = []

        async def send_nothing(message: Any) -> None:
            sent.append(message)

        headers = [(b"host", b"127.0.0.1:8000"), (b"content-type", TAR.encode())]
        path = "/v1/galleries/g/imports"
        scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b""}
        scope |= {"headers": headers, "http_version": "1.1", "scheme": "http", "asgi": {"version": "3.0"}}
        assert client.portal is not None
        client.portal.call(app, scope, receive, send_nothing)
        assert sent == []
        assert list((tmp_path / "data" / "jobs").iterdir()) == []
        assert client.get("/v1/jobs").json()["jobs"] == []
