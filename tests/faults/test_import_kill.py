"""kill -9 during an import: the restarted server finishes it, and every item is stored exactly once.

The kill happens at the two worst moments: a group of entries is stored but not yet recorded in the job, or has just
been recorded. Stored entries are never embedded again; stored but unrecorded entries are compared and counted as
skipped.
"""

from __future__ import annotations

import multiprocessing
import signal
from contextlib import closing
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from server.jobs import runner
from server.jobs.imports import images, vectors
from server.jobs.runner import Context
from server.runner import in_background
from server.settings import Settings
from tests.server.image_files import encode
from tests.server.jobs.uploads import ndjson, tar, vector_rows
from tests.server.stub_model import write_model
from vireid.client import Client, ImportKind

# A fork server with everything imported, so that a child starts quickly.
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload([__name__])

PATIENCE_S = 60
GROUP = 8
TOTAL = 5 * GROUP - 3

Moment = Literal["before", "after"]


def _serve(data: Path, models: Path, connection: Connection, moment: Moment | None) -> None:
    """Serve; with ``moment``, report and block before or after the second group is recorded."""
    images.GROUP = vectors.GROUP = GROUP
    settings = Settings(data_dir=data, model_dir=models, device="cpu", threads=1, host="127.0.0.1", port=0, auth="off")
    notes = 0

    def hold() -> None:
        connection.send("held")
        signal.pause()

    class Held(Context):
        def advance(self, cursor: Any, **counts: Any) -> None:
            nonlocal notes
            notes += 1
            if (notes, moment) == (2, "before"):
                hold()
            super().advance(cursor, **counts)
            if (notes, moment) == (2, "after"):
                hold()

    runner.Context = Held  # type: ignore[misc]
    with in_background(settings) as url:
        connection.send(url)
        signal.pause()


class Server:
    """A server in its own process, over a data directory that outlives it."""

    def __init__(self, data: Path, models: Path, moment: Moment | None = None) -> None:
        self._connection, there = _PROCESSES.Pipe()
        self._process = _PROCESSES.Process(target=_serve, args=(data, models, there, moment), daemon=True)
        self._process.start()
        self.url: str = self.hear()

    def hear(self) -> str:
        assert self._connection.poll(PATIENCE_S), "the server sent no message"
        message: str = self._connection.recv()
        return message

    def close(self) -> None:
        """Kill the process with SIGKILL."""
        self._process.kill()
        self._process.join()
        assert self._process.exitcode == -signal.SIGKILL


def embedded(client: Client) -> int:
    """Return the number of images embedded since the server started."""
    page = client._http.send("GET", "/metrics").text
    sums = [line for line in page.splitlines() if line.startswith("vireid_batch_images_sum")]
    return int(float(sums[0].split()[-1])) if sums else 0


def upload(kind: ImportKind) -> bytes:
    if kind == "ndjson":
        return ndjson(vector_rows(TOTAL))
    draw = np.random.default_rng(0)
    return tar({f"{n % 3}/{n:05}.png": encode(draw.integers(0, 256, (24, 12, 3), np.uint8)) for n in range(TOTAL)})


@pytest.mark.parametrize("kind", ["tar", "ndjson"])
def test_import_survives_kills_without_repeating_work(tmp_path: Path, kind: ImportKind) -> None:
    data, models = tmp_path / "data", tmp_path / "zoo"
    write_model(models / "stub")
    with closing(Server(data, models, "before")) as server, Client(server.url) as client:
        client.create_gallery("g")
        job = client.import_file("g", [upload(kind)], kind).id
        assert server.hear() == "held"
        assert (client.job(job).done, client.gallery("g").items) == (GROUP, 2 * GROUP)
    with closing(Server(data, models, "after")) as server, Client(server.url) as client:
        assert server.hear() == "held"
        assert (client.job(job).done, client.job(job).skipped) == (2 * GROUP, GROUP)
        assert client.gallery("g").items == 3 * GROUP
    with closing(Server(data, models)) as server, Client(server.url) as client:
        *_, end = client.watch(job)
        assert (end.state, end.total, end.done, end.skipped) == ("succeeded", TOTAL, TOTAL - GROUP, GROUP)
        assert embedded(client) == (TOTAL - 3 * GROUP if kind == "tar" else 0)
        items = [item.id for item in client.items("g")]
        assert len(items) == len(set(items)) == TOTAL == client.gallery("g").items
        list(client.watch(client.import_file("g", [b""], "ndjson").id))  # so that the runner has finished the first job
        assert not (data / "jobs" / job).exists()
