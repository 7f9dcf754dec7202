"""A server in a process of its own, as ``vireid serve`` runs it, to be killed."""

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

from tests.faults.hurried import hurried
from vireid.cli import app

__all__ = ["Server"]

# A server of forks with everything imported: a child starts in a moment.
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload([__name__, "server.app", "vireid.serving", "vireid.hosting"])

_PATIENCE_S = 60
_POLL_S = 0.005


class Server:
    """A server over a data directory that outlives it. What it prints goes to ``output``, behind what is there."""

    def __init__(self, data: Path, models: Path, output: Path, *, in_a_hurry: bool = False) -> None:
        output.touch()
        self._output, self._before = output, output.stat().st_size
        self.process = _PROCESSES.Process(target=_serve, args=(data, models, output, in_a_hurry), daemon=True)
        self.process.start()

    @property
    def output(self) -> str:
        """What it has printed by now."""
        return self._output.read_bytes()[self._before :].decode()

    def found(self) -> str | None:
        """Where it listens, if it does already."""
        match = re.search(r"vireid serves (\S+)/;", self.output)
        return match and match[1]

    def url(self) -> str:
        """Where it listens; waits until it does. Its galleries may still be being loaded."""
        deadline = time.monotonic() + _PATIENCE_S
        while (url := self.found()) is None:
            assert self.process.is_alive(), f"the server did not start:\n{self.output}"
            assert time.monotonic() < deadline, self.output
            time.sleep(_POLL_S)
        return url

    def ready(self) -> str:
        """Where it listens; waits until it is ready."""
        url, deadline = self.url(), time.monotonic() + _PATIENCE_S
        while not _answers(f"{url}/readyz"):
            assert self.process.is_alive(), self.output
            assert time.monotonic() < deadline, self.output
            time.sleep(_POLL_S)
        return url

    def kill(self) -> None:
        """SIGKILL: no chance to put anything in order."""
        self.process.kill()
        self.process.join()
        assert self.process.exitcode == -signal.SIGKILL, self.output

    def end(self) -> int:
        """Tell it to stop; its exit code."""
        self.process.terminate()
        return self.exit_code()

    def exit_code(self) -> int:
        """Waits for it to end by itself."""
        self.process.join(_PATIENCE_S)
        assert self.process.exitcode is not None, self.output
        return self.process.exitcode


def _answers(url: str) -> bool:
    try:
        with urlopen(url) as answer:
            return bool(answer.status == 200)
    except URLError:
        return False


def _serve(data: Path, models: Path, output: Path, in_a_hurry: bool) -> None:
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
        if in_a_hurry:
            stack.enter_context(hurried())
        app(["serve"])
