"""A program and its children that a benchmark starts, pauses while others are measured, and ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any
from urllib.error import URLError
from urllib.request import urlopen

__all__ = ["Process", "free_port", "started"]

_TICKS = os.sysconf("SC_CLK_TCK")
_PATIENCE_S = 180


class Process:
    """A program in its own process group."""

    def __init__(
        self,
        command: Sequence[str | Path],
        log: IO[bytes],
        environment: Mapping[str, str] | None = None,
        *,
        piped: bool = False,
    ) -> None:
        """Start the program; with ``piped``, it exchanges lines of JSON through pipes."""
        self.began = time.perf_counter()
        pipe = subprocess.PIPE if piped else None
        self.popen = subprocess.Popen(
            [str(word) for word in command],
            env={**os.environ, **(environment or {})},
            stdin=pipe or subprocess.DEVNULL,
            stdout=pipe or log,
            stderr=log,
            start_new_session=True,
        )
        self.pid, self._log = self.popen.pid, log.name

    def pause(self) -> None:
        """Stop the process group (SIGSTOP), so that polling does not disturb other measurements."""
        os.killpg(self.pid, signal.SIGSTOP)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Continue the process group within the block, and pause it afterwards."""
        os.killpg(self.pid, signal.SIGCONT)
        try:
            yield
        finally:
            self.pause()

    def wait_until(self, true: Callable[[], bool]) -> float:
        """Wait until the condition is true; return the seconds since the start.

        Raises:
            RuntimeError: the program has ended, or it takes too long.
        """
        while not true():
            if self.popen.poll() is not None:
                raise RuntimeError(f"{self.popen.args} has ended with {self.popen.returncode}: {self.log_tail()}")
            if time.perf_counter() - self.began > _PATIENCE_S:
                raise RuntimeError(f"{self.popen.args} is not ready after {_PATIENCE_S} s: {self.log_tail()}")
            time.sleep(0.05)
        return time.perf_counter() - self.began

    def wait_until_ready(self, url: str) -> float:
        """Wait until ``url`` returns 200; return the seconds since the start."""
        return self.wait_until(lambda: _answers(url))

    def log_tail(self) -> str:
        """Return the end of its log, in one line."""
        return " ".join(Path(self._log).read_text("utf-8", "replace")[-600:].split())

    def call(self, request: Any) -> Any:
        """Send a line of JSON and return the response; requires ``piped``.

        Raises:
            RuntimeError: the program has ended.
        """
        pipe = self.popen.stdin
        assert pipe
        pipe.write(json.dumps(request).encode() + b"\n")
        pipe.flush()
        return self.receive()

    def receive(self) -> Any:
        """Return its next line of JSON.

        Raises:
            RuntimeError: the program has ended.
        """
        receive = self.popen.stdout
        assert receive
        if not (answer := receive.readline()):
            raise RuntimeError(self.log_tail())
        return json.loads(answer)

    def memory(self) -> dict[str, int]:
        """Return the current and the highest resident memory in bytes."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        found = dict(line.split(":", 1) for line in lines)
        return {name: 1024 * int(found[key].split()[0]) for name, key in (("now", "VmRSS"), ("highest", "VmHWM"))}

    def cpu(self) -> float:
        """Return the CPU seconds used so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def end(self) -> None:
        """Terminate the process group, and kill it after 20 s."""
        for pipe in (self.popen.stdin, self.popen.stdout):
            if pipe:
                pipe.close()
        for number in (signal.SIGCONT, signal.SIGTERM):
            self._signal(number)
        with suppress(subprocess.TimeoutExpired):
            self.popen.wait(20)
        self._signal(signal.SIGKILL)
        self.popen.wait()

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)


@contextmanager
def started(
    command: Sequence[str | Path], log: Path, environment: Mapping[str, str] | None = None, *, piped: bool = False
) -> Iterator[Process]:
    """Run a program for the duration of the block; its output goes to ``log``."""
    with log.open("ab") as file:
        process = Process(command, file, environment, piped=piped)
        try:
            yield process
        finally:
            process.end()


def free_port() -> int:
    """Return an unused port of the loopback address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def _answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False
