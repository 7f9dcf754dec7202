"""The process that reads uploads: limits on memory, interruption at any point, and an end without a word."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from server.domain.errors import ArchiveRejected
from server.jobs.reader_process import ReaderDied, read_in_process

HERE = "tests.server.jobs.test_reader_process"


def endless() -> Iterator[int]:
    yield 1
    while True:
        pass


def greedy() -> Iterator[int]:
    yield len(bytearray(2**31))


def killed() -> Iterator[int]:
    yield 1
    os.kill(os.getpid(), signal.SIGKILL)


def refusing() -> Iterator[int]:
    yield 1
    raise ArchiveRejected("it is bad")


def test_memory_beyond_the_limit_is_a_reason() -> None:
    with pytest.raises(ArchiveRejected, match="more memory than the 1,024 MiB"):
        list(read_in_process(f"{HERE}:greedy", check=lambda: None))


def test_endless_reading_is_interrupted_within_a_second() -> None:
    class Stop(Exception):
        pass

    stopping = time.monotonic() + 2.0  # the process is reading by then

    def check() -> None:
        if time.monotonic() > stopping:
            raise Stop

    with pytest.raises(Stop):
        list(read_in_process(f"{HERE}:endless", check=check))
    assert time.monotonic() - stopping < 1.0


def test_death_and_refusal_of_the_process_are_distinguished() -> None:
    with pytest.raises(ReaderDied, match="signal 9"):
        list(read_in_process(f"{HERE}:killed", check=lambda: None))
    with pytest.raises(ArchiveRejected, match="it is bad"):
        list(read_in_process(f"{HERE}:refusing", check=lambda: None))
