"""Decoding of images that may take long, in processes that are ended when they exceed a limit."""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

import numpy as np

from server.domain.errors import ImageRejected, NotReady
from server.embedding.batcher import IMPORT_NICENESS, SHUTTING_DOWN, Priority
from server.embedding.decode import Pixels
from server.embedding.decode_worker import ERRORS, REQUEST, RESPONSE, receive_exactly
from server.embedding.image_file import pixel_count

__all__ = ["IsolatedDecoders"]

STALL_S = 15.0
"""Images of queries wait, and none was decoded for so long: the server is not ready."""

LARGE_PIXELS = 1 << 20
"""Larger images have processes of their own, so that they do not delay small ones."""

_BASE_S, _S_PER_PIXEL = 4.0, 4e-7  # five times what an idle core needs at most
_START_S = 60.0
_IMAGES_PER_PROCESS = 1_000
_VARIABLES = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH")  # none that may hold secrets
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def time_limit(pixels: int) -> float:
    """Return the seconds that decoding an image of so many pixels may take: 14 s for 25 million."""
    return _BASE_S + _S_PER_PIXEL * pixels


class IsolatedDecoders:
    """Processes that decode images, started when they are needed and restarted after a failure.

    Small and large images of queries, and images of imports, have processes of their own. ``cores`` is the number of
    processes for small images of queries, at least 2, so that one that takes long does not hold up the next.
    """

    def __init__(self, cores: int) -> None:
        self._closed = False
        self._waiting: dict[int, float] = {}
        self._last_decoded = time.monotonic()
        self._numbers = itertools.count()
        self._workers = _Workers()
        small, large = max(2, cores), max(1, cores // 2)
        self._small, self._large, self._imports = (
            ThreadPoolExecutor(count, name)
            for count, name in ((small, "isolated-small"), (large, "isolated-large"), (large, "isolated-import"))
        )

    def submit(
        self, data: bytes, priority: Priority, *, max_pixels: int, percentiles: tuple[float, float]
    ) -> Future[Pixels]:
        """Decode an image file; see ``decode_image``.

        The future also fails with ``ImageRejected`` if decoding exceeds its limit of time or memory, with ``NotReady``
        if no process can be started.
        """
        pixels = pixel_count(data) or 2 * len(data)
        pool = self._large if pixels > LARGE_PIXELS else self._small
        if priority is Priority.IMPORT:
            pool = self._imports
        number = next(self._numbers)
        if priority is Priority.QUERY:
            self._waiting[number] = time.monotonic()
        nice = IMPORT_NICENESS if priority is Priority.IMPORT else 0
        future = pool.submit(self._decode, data, nice, max_pixels, percentiles, time_limit(min(pixels, max_pixels)))
        future.add_done_callback(lambda _: self._note_end(number))
        return future

    def _note_end(self, number: int) -> None:
        if self._waiting.pop(number, None) is not None:
            self._last_decoded = time.monotonic()

    @property
    def waiting(self) -> int:
        """Number of images of queries that are being decoded or wait for it."""
        return len(self._waiting)

    def problems(self) -> list[str]:
        """Return the reasons why images cannot be decoded; empty if they can."""
        found = [self._workers.failure] if self._workers.failure else []
        waiting = list(self._waiting.values())
        if waiting and (seconds := time.monotonic() - max(self._last_decoded, min(waiting))) > STALL_S:
            found.append(f"image decoding is stalled: {len(waiting)} images wait, none was decoded for {seconds:.0f} s")
        return found

    def close(self) -> None:
        """End all processes; pending images fail with ``NotReady``."""
        self._closed = True
        for pool in (self._small, self._large, self._imports):
            pool.shutdown(wait=False, cancel_futures=True)
        self._workers.close()
        for pool in (self._small, self._large, self._imports):
            pool.shutdown()

    def _decode(
        self, data: bytes, nice: int, max_pixels: int, percentiles: tuple[float, float], limit_s: float
    ) -> Pixels:
        worker = self._workers.of_this_thread(nice)
        if worker is None:
            raise NotReady([SHUTTING_DOWN if self._closed else "the processes that decode images cannot be started"])
        try:
            return worker.decode(data, max_pixels, percentiles, limit_s)
        except OSError as error:
            self._workers.discard(worker)
            if self._closed:
                raise NotReady([SHUTTING_DOWN]) from None
            took_long = isinstance(error, TimeoutError)
            reason = f"decoding the image takes longer than {limit_s:.0f} s" if took_long else "the image is damaged"
            raise ImageRejected(reason) from None
        finally:
            if worker.decoded >= _IMAGES_PER_PROCESS:
                self._workers.discard(worker)


class _Workers:
    """One process per decoding thread."""

    def __init__(self) -> None:
        self.failure: str | None = None
        self._lock = threading.Lock()
        self._by_thread: dict[int, _Worker] = {}
        self._closed = False

    def of_this_thread(self, nice: int) -> _Worker | None:
        """Return this thread's process, started if necessary; None if that fails or the pool is closed."""
        thread = threading.get_ident()
        with self._lock:
            if (worker := self._by_thread.get(thread)) or self._closed:
                return worker
        try:
            worker = _Worker(nice)
        except OSError as error:
            self.failure = f"the processes that decode images cannot be started: {type(error).__name__}"
            return None
        self.failure = None
        with self._lock:
            if not self._closed:
                self._by_thread[thread] = worker
                return worker
        worker.kill()
        return None

    def discard(self, worker: _Worker) -> None:
        """End a process; its thread starts another one."""
        with self._lock:
            self._by_thread = {thread: each for thread, each in self._by_thread.items() if each is not worker}
        worker.kill()

    def close(self) -> None:
        """End all processes."""
        with self._lock:
            self._closed = True
            workers, self._by_thread = list(self._by_thread.values()), {}
        for worker in workers:
            worker.kill()


class _Worker:
    """A decoding process.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(self, nice: int) -> None:
        self.decoded = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._socket, theirs = socket.socketpair()
        try:
            with theirs:
                self._process = _start(theirs, nice)
            self._socket.settimeout(_START_S)
            if not receive_exactly(self._socket, bytearray(1)):
                raise ConnectionError("the process has ended")
        except OSError:
            self.kill()
            raise

    def decode(self, data: bytes, max_pixels: int, percentiles: tuple[float, float], limit_s: float) -> Pixels:
        """Decode an image file; see ``decode_image``.

        Raises:
            TimeoutError: it takes longer than ``limit_s``.
            OSError: the process has ended.
        """
        self.decoded += 1
        self._socket.settimeout(limit_s)
        self._socket.sendall(REQUEST.pack(len(data), max_pixels, *percentiles))
        self._socket.sendall(data)
        header = bytearray(RESPONSE.size)
        if not receive_exactly(self._socket, header):
            raise ConnectionError("the process has ended")
        status, height, width = RESPONSE.unpack(header)
        if status:
            reason = bytearray(height)
            receive_exactly(self._socket, reason)
            raise ERRORS[status - 1](reason.decode())
        pixels = np.empty((height, width, 3), np.uint8)
        receive_exactly(self._socket, pixels.data.cast("B"))
        return pixels

    def kill(self) -> None:
        """End the process; a decoding that runs in another thread fails with ``OSError``."""
        if self._process:
            self._process.kill()
            self._process.wait()
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


def _start(connection: socket.socket, nice: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603 - nothing of it comes from outside
        [sys.executable, "-P", "-m", "server.embedding.decode_worker", str(nice)],
        stdin=connection.fileno(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # signals to the server's process group do not reach it
        env={name: os.environ[name] for name in _VARIABLES if name in os.environ} | _ONE_THREAD,
    )
