"""Reads untrusted files in a separate process that has limits on memory and time and can be killed at any point.

The process runs a generator of this program and sends what it yields, in batches, through a pipe. It shares only the
files that it reads with the server, so the server continues whatever happens to the process.
"""

from __future__ import annotations

import importlib
import os
import pickle
import select
import signal
import struct
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from typing import IO, Any

from server.domain.errors import ArchiveRejected, ServiceError

__all__ = ["READER_MEMORY", "ReaderDied", "read_in_process"]

READER_MEMORY = 2**30
"""Bytes of address space of a process that reads archives and text."""

_SILENCE_S = 60.0
"""Seconds without an entry, or any other sign of progress, after which reading is given up."""

_POLL_MS = 50
_BATCH_BYTES, _BATCH_S = 2**18, 0.1
_SIGN_S = 0.5
_LARGEST_FRAME = 2**30
_LARGEST_FILE = 4 * 2**30  # of those it writes
_PIPE_BYTES = 2**20
_FRAME = struct.Struct("<cQ")
_MESSAGES, _SIGN, _ERROR, _BUG, _END = b"M", b"S", b"E", b"B", b"."


class ReaderDied(Exception):
    """The process ended without a word: it crashed, or something killed it."""


class _ReaderFailed(Exception):
    """The generator raised what it must not; the text is its traceback."""


def read_in_process(
    function: str, *arguments: object, check: Callable[[], None], memory: int = READER_MEMORY
) -> Generator[Any, None, None]:
    """Yield what the generator ``function`` (``module:name``) yields for ``arguments``, all of which are pickled.

    ``check`` is called at least ten times a second; what it raises ends the process. Closing the iterator does too.

    Raises:
        ServiceError: the generator raised it, or reading needs more memory or time than it may have.
        ReaderDied: the process ended unexpectedly.
    """
    process = subprocess.Popen(  # noqa: S603 - this program
        [sys.executable, "-S", "-E", "-c", _BOOT, *dict.fromkeys(filter(None, sys.path))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for the server
        env=os.environ | _QUIET,
    )
    try:
        assert process.stdin is not None  # noqa: S101
        with suppress(BrokenPipeError), process.stdin as pipe:
            pickle.dump((function, arguments, memory), pipe)
        yield from _received(process, check)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()  # type: ignore[union-attr]


_BOOT = "import sys; sys.path[:] = sys.argv[1:]; from server.jobs.reader_process import _main; _main()"
_QUIET = {
    "MALLOC_ARENA_MAX": "1",  # each arena of a thread would take 64 MiB of address space
    "ARROW_DEFAULT_MEMORY_POOL": "system",  # others reserve a GiB
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


def _received(process: subprocess.Popen[bytes], check: Callable[[], None]) -> Iterator[Any]:
    assert process.stdout is not None  # noqa: S101
    pipe = _Pipe(process.stdout.fileno(), check)
    while True:
        header = pipe.read(_FRAME.size)
        if len(header) < _FRAME.size:
            raise ReaderDied(_last_words(process))
        kind, size = _FRAME.unpack(header)
        content = pipe.read(size) if size <= _LARGEST_FRAME else b""
        if len(content) < size:
            raise ReaderDied(_last_words(process))
        if kind == _MESSAGES:
            yield from pickle.loads(content)  # noqa: S301 - of this program's own process
        elif kind == _ERROR:
            raise pickle.loads(content)  # noqa: S301
        elif kind == _BUG:
            raise _ReaderFailed(content.decode())
        elif kind == _END:
            return


def _last_words(process: subprocess.Popen[bytes]) -> str:
    code = process.wait()
    return f"signal {-code}" if code < 0 else f"exit code {code}"


class _Pipe:
    """Reads from a pipe without ever waiting long for it."""

    def __init__(self, descriptor: int, check: Callable[[], None]) -> None:
        self._descriptor, self._check = descriptor, check
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)

    def read(self, size: int) -> bytes:
        """Return ``size`` bytes, fewer only at the end."""
        parts = []
        while size and (data := self._some(size)):
            parts.append(data)
            size -= len(data)
        return b"".join(parts)

    def _some(self, size: int) -> bytes:
        deadline = time.monotonic() + _SILENCE_S
        self._check()
        while not self._poll.poll(_POLL_MS):
            self._check()
            if time.monotonic() > deadline:
                raise ArchiveRejected(f"reading it got no further within {_SILENCE_S:.0f} s")
        return os.read(self._descriptor, min(size, _PIPE_BYTES))


class _Sender:
    """Sends messages in batches, and a sign of life where there are none."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe
        self._messages: list[object] = []
        self._bytes = 0
        self._sent = time.monotonic()

    def add(self, message: object) -> None:
        self._messages.append(message)
        self._bytes += getattr(message, "size", 256)
        if self._bytes >= _BATCH_BYTES or time.monotonic() - self._sent >= _BATCH_S:
            self.flush()

    def progress(self) -> None:
        if time.monotonic() - self._sent >= _SIGN_S:
            self.send(_SIGN)

    def flush(self) -> None:
        if self._messages:
            self.send(_MESSAGES, pickle.dumps(self._messages, protocol=5))
            self._messages, self._bytes = [], 0

    def send(self, kind: bytes, content: bytes = b"") -> None:
        self._pipe.write(_FRAME.pack(kind, len(content)) + content)
        self._pipe.flush()
        self._sent = time.monotonic()


def _main() -> None:
    """Run in the process: read the function and its arguments, call it and send what it yields."""
    function, arguments, memory = pickle.load(sys.stdin.buffer)  # noqa: S301 - of the server
    pipe = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # only the sender writes into the pipe
    _limit(memory)
    sender = _Sender(pipe)
    try:
        module, _, name = function.partition(":")
        from server.jobs.imports.progress import on_progress

        on_progress(sender.progress)
        for message in getattr(importlib.import_module(module), name)(*arguments):
            sender.add(message)
        sender.flush()
        sender.send(_END)
    except ServiceError as error:
        sender.flush()
        sender.send(_ERROR, pickle.dumps(error))
    except MemoryError:
        refused = ArchiveRejected(f"reading it takes more memory than the {memory // 2**20:,} MiB that are allowed")
        sender.send(_ERROR, pickle.dumps(refused))
    except Exception:
        sender.send(_BUG, traceback.format_exc().encode()[-10_000:])


def _limit(memory: int) -> None:
    """Bound what this process may take, and let it end with the server."""
    for ignored in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ignored, signal.SIG_IGN)  # the server gets the signal and ends this process
    with suppress(ImportError):
        import resource

        for kind, limit in (
            (resource.RLIMIT_AS, memory),
            (resource.RLIMIT_FSIZE, _LARGEST_FILE),
            (resource.RLIMIT_CORE, 0),
        ):
            with suppress(ValueError, OSError):  # a lower one holds already
                resource.setrlimit(kind, (limit, limit))
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
