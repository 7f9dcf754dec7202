"""A program beside the benchmark, with all its children: started, stopped while others are measured, ended."""

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
    """A program in a process group of its own."""

    def __init__(
        self,
        command: Sequence[str | Path],
        log: IO[bytes],
        environment: Mapping[str, str] | None = None,
        *,
        talks: bool = False,
    ) -> None:
        """``talks``: it is spoken to through pipes."""
        self.began = time.perf_counter()
        pipe = subprocess.PIPE if talks else None
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
        """Let it stand still: what polls and spins disturbs nobody."""
        os.killpg(self.pid, signal.SIGSTOP)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Going on within the block, standing still after it."""
        os.killpg(self.pid, signal.SIGCONT)
        try:
            yield
        finally:
            self.pause()

    def until(self, true: Callable[[], bool]) -> float:
        """Seconds from the start until it is true.

        Raises:
            RuntimeError: the program has ended, or it takes too long.
        """
        while not true():
            if self.popen.poll() is not None:
                raise RuntimeError(f"{self.popen.args} has ended with {self.popen.returncode}: {self.last_words()}")
            if time.perf_counter() - self.began > _PATIENCE_S:
                raise RuntimeError(f"{self.popen.args} is not ready after {_PATIENCE_S} s: {self.last_words()}")
            time.sleep(0.05)
        return time.perf_counter() - self.began

    def until_answers(self, url: str) -> float:
        """Seconds from the start until ``url`` is answered with 200."""
        return self.until(lambda: _answers(url))

    def last_words(self) -> str:
        """The end of its log, in one line."""
        return " ".join(Path(self._log).read_text("utf-8", "replace")[-600:].split())

    def ask(self, wish: Any) -> Any:
        """Say a line of JSON and hear the answer; for one that talks.

        Raises:
            RuntimeError: it has ended.
        """
        say = self.popen.stdin
        assert say
        say.write(json.dumps(wish).encode() + b"\n")
        say.flush()
        return self.hear()

    def hear(self) -> Any:
        """Its next line of JSON.

        Raises:
            RuntimeError: it has ended.
        """
        hear = self.popen.stdout
        assert hear
        if not (answer := hear.readline()):
            raise RuntimeError(self.last_words())
        return json.loads(answer)

    def memory(self) -> dict[str, int]:
        """Resident bytes, now and at the highest."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        found = dict(line.split(":", 1) for line in lines)
        return {name: 1024 * int(found[key].split()[0]) for name, key in (("now", "VmRSS"), ("highest", "VmHWM"))}

    def cpu(self) -> float:
        """Seconds of all cores that it has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def end(self) -> None:
        """Tell the group to stop, and make it."""
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
    command: Sequence[str | Path], log: Path, environment: Mapping[str, str] | None = None, *, talks: bool = False
) -> Iterator[Process]:
    """A program for the length of the block; what it prints goes to ``log``."""
    with log.open("ab") as file:
        process = Process(command, file, environment, talks=talks)
        try:
            yield process
        finally:
            process.end()


def free_port() -> int:
    """A port of the loopback address that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def _answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False
