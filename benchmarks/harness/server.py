"""The server under test: ``vireid serve`` of this environment, on a free port."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.harness.process import Process, free_port, started

__all__ = ["Server", "serving"]


@dataclass(frozen=True, slots=True)
class Server:
    """A ready server. ``ready_s``: seconds from the start of its process until it was ready."""

    url: str
    process: Process
    ready_s: float


@contextmanager
def serving(model: Path | None = None, data: Path | None = None, **settings: str) -> Iterator[Server]:
    """Run a server on ``data``, or on an empty directory; ``settings`` are ``VIREID_…`` variables.

    ``model`` is the folder of the only model; by default the server loads all models of the zoo.

    Raises:
        RuntimeError: it does not become ready.
    """
    with TemporaryDirectory() as scratch:
        port = free_port()
        if model:
            zoo = Path(scratch) / "zoo"
            zoo.mkdir()
            (zoo / model.name).symlink_to(model.resolve())
            settings = {"VIREID_MODEL_DIR": str(zoo), **settings}
        environment = {"VIREID_PORT": str(port), "VIREID_DATA_DIR": str(data or Path(scratch) / "data"), **settings}
        command = [Path(sys.executable).with_name("vireid"), "serve"]
        with started(command, Path(scratch) / "log", environment) as process:
            url = f"http://127.0.0.1:{port}"
            yield Server(url, process, process.wait_until_ready(f"{url}/readyz"))
