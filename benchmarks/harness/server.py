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
    """A server that is ready. ``ready_s``: seconds that it took from the start of its process."""

    url: str
    process: Process
    ready_s: float


@contextmanager
def serving(model: Path | None = None, data: Path | None = None, **settings: str) -> Iterator[Server]:
    """A server over ``data``, or over an empty directory of its own; ``settings`` are ``VIREID_…`` variables.

    ``model``: the folder of the only one that it loads; without it the server has all those of the zoo.

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
            yield Server(url, process, process.until_answers(f"{url}/readyz"))
