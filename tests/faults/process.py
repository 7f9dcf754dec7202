"""A server in its own process, started by ``vireid serve``, that tests can kill."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import time
from contextlib import ExitStack
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from tests.faults.fast_maintenance import fast_maintenance
from vireid.cli import app

__all__ = ["Server"]

# A fork server with everything imported, so that a child starts quickly.
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload([__name__, "server.app", "vireid.cli.serve", "server.runner"])

_PATIENCE_S = 60
_POLL_S = 0.005


class Server:
    """A server over a data directory that outlives it. Its output is appended to ``output``."""

    def __init__(self, data: Path, models: Path, output: Path, *, frequent_maintenance: bool = False) -> None:
        output.touch()
        self._output, self._before = output, output.stat().st_size
        self.process = _PROCESSES.Process(target=_serve, args=(data, models, output, frequent_maintenance), daemon=True)
        self.process.start()

    @property
    def output(self) -> str:
        """Return its output so far."""
        return self._output.read_bytes()[self._before :].decode()

    def find_url(self) -> str | None:
        """Return its URL, if it is listening."""
        match = re.search(r"vireid serves (\S+)/;", self.output)
        return match and match[1]

    def url(self) -> str:
        """Wait until it is listening; return its URL. Galleries may still be loading."""
        deadline = time.monotonic() + _PATIENCE_S
        while (url := self.find_url()) is None:
            assert self.process.is_alive(), f"the server did not start:\n{self.output}"
            assert time.monotonic() < deadline, self.output
            time.sleep(_POLL_S)
        return url

    def ready(self) -> str:
        """Wait until it is ready; return its URL."""
        url, deadline = self.url(), time.monotonic() + _PATIENCE_S
        while not _answers(f"{url}/readyz"):
            assert self.process.is_alive(), self.output
            assert time.monotonic() < deadline, self.output
            time.sleep(_POLL_S)
        return url

    def kill(self) -> None:
        """Kill the process with SIGKILL."""
        self.process.kill()
        self.process.join()
        assert self.process.exitcode == -signal.SIGKILL, self.output

    def end(self) -> int:
        """Stop it; return its exit code."""
        self.process.terminate()
        return self.exit_code()

    def exit_code(self) -> int:
        """Wait for it to end by itself."""
        self.process.join(_PATIENCE_S)
        assert self.process.exitcode is not None, self.output
        return self.process.exitcode


def _answers(url: str) -> bool:
    try:
        with urlopen(url) as answer:
            return bool(answer.status == 200)
    except URLError:
        return False


def _serve(data: Path, models: Path, output: Path, frequent_maintenance: bool) -> None:
    with output.open("ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ |= {
        "VIREID_DATA_DIR": str(data),
        "VIREID_MODEL_DIR": str(models),
        "VIREID_DEVICE": "cpu",
        "VIREID_THREADS": "1",
        "VIREID_PORT": "0",
    }
    with ExitStack() as stack:
        if frequent_maintenance:
            stack.enter_context(fast_maintenance())
        app(["serve"])
