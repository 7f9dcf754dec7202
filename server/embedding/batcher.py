"""One inference thread that takes whatever is waiting: no timer, queries first, nobody left waiting for ever."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from models.card import Modality
from server.embedding.session import Embedder, Vectors
from server.errors import EmbeddingFailed, NotReady

__all__ = ["Batcher", "Embedded", "Priority"]

STALL_S = 30.0
"""A batch that runs longer than this turns ready off."""

_FAILURES_IN_A_ROW = 3

log = logging.getLogger(__name__)


class Priority(IntEnum):
    """Who goes first. A batch holds one priority only, so that a query never pays for an import."""

    QUERY = 0
    IMPORT = 1


@dataclass(frozen=True, slots=True)
class Embedded:
    """A unit vector float32 ``[D]``, how long its image waited and how long its batch ran, in seconds."""

    vector: Vectors
    queue_s: float
    embed_s: float


@dataclass(frozen=True, slots=True)
class _Job:
    pixels: NDArray[np.uint8]
    modality: Modality
    future: Future[Embedded] = field(default_factory=Future)
    submitted: float = field(default_factory=time.monotonic)


class Batcher:
    """Batches the images of many callers for one :class:`Embedder`, in one supervised thread.

    1. The thread takes what waits, up to ``embedder.largest_batch``, and starts at once.
    2. A cancelled image is dropped when its batch is formed.
    3. A batch that fails is run again image by image; the bad one fails alone, with ``EmbeddingFailed``.
    4. However the thread ends, every waiting caller gets ``NotReady``, and so does every later one.

    ``observe(images, seconds)`` is called after each run of the model.
    """

    def __init__(self, embedder: Embedder, observe: Callable[[int, float], None] | None = None) -> None:
        self._embedder = embedder
        self._observe = observe
        self._waiting: dict[Priority, deque[_Job]] = {priority: deque() for priority in Priority}
        self._changed = threading.Condition()
        self._ended: str | None = None
        self._running_since: float | None = None
        self._running: Sequence[_Job] = ()
        self._failures = 0
        self._thread = threading.Thread(target=self._live, name=f"embed-{embedder.card.name}", daemon=True)
        self._thread.start()

    @property
    def depth(self) -> int:
        """Images that wait."""
        return sum(map(len, self._waiting.values()))

    def problems(self) -> list[str]:
        """Why this batcher is not ready; empty when it is."""
        with self._changed:
            ended, since, failures = self._ended, self._running_since, self._failures
        if ended:
            return [ended]
        found = []
        if since is not None and time.monotonic() - since > STALL_S:
            found.append(self._says(f"a batch has been running for {time.monotonic() - since:.0f} s"))
        if failures >= _FAILURES_IN_A_ROW:
            found.append(self._says(f"the last {failures} runs failed"))
        return found

    def submit(self, pixels: NDArray[np.uint8], modality: Modality, priority: Priority) -> Future[Embedded]:
        """Queue one crop, uint8 ``[H, W, 3]`` of the card's size.

        The future gives the vector, or ``EmbeddingFailed``, or ``NotReady`` if the thread ends first.

        Raises:
            NotReady: the thread has ended.
        """
        job = _Job(pixels, modality)
        with self._changed:
            if self._ended:
                raise NotReady([self._ended])
            self._waiting[priority].append(job)
            self._changed.notify()
        return job.future

    def close(self) -> None:
        """End the thread after the batch it is running; whoever still waits gets ``NotReady``."""
        self._end(self._says("the server is shutting down"))
        self._thread.join()

    def _says(self, what: str) -> str:
        return f"model {self._embedder.card.name}: {what}"

    def _live(self) -> None:
        try:
            while batch := self._take():
                self._running = batch
                self._serve(batch)
        except BaseException:  # the supervised exit: nothing may kill this thread unseen
            log.exception(self._says("the inference thread died"))
        finally:
            self._end(self._says("the inference thread has ended"))
            self._abandon(job for job in self._running if not job.future.done())

    def _end(self, reason: str) -> None:
        with self._changed:
            self._ended = self._ended or reason
            waiting = [job for queue in self._waiting.values() for job in queue]
            for queue in self._waiting.values():
                queue.clear()
            self._changed.notify_all()
        self._abandon(job for job in waiting if job.future.set_running_or_notify_cancel())

    def _abandon(self, jobs: Iterable[_Job]) -> None:
        for job in jobs:
            job.future.set_exception(NotReady([self._ended or ""]))

    def _take(self) -> list[_Job]:
        """The next batch; sleeps while nothing waits. Empty when the batcher has ended."""
        with self._changed:
            while not self._ended:
                queue = next((queue for queue in self._waiting.values() if queue), None)
                if queue is None:
                    self._changed.wait()
                    continue
                batch: list[_Job] = []
                while queue and len(batch) < self._embedder.largest_batch:
                    job = queue.popleft()
                    if job.future.set_running_or_notify_cancel():
                        batch.append(job)
                if batch:
                    return batch
        return []

    def _serve(self, batch: Sequence[_Job]) -> None:
        started = self._running_since = time.monotonic()
        try:
            vectors = self._embed(batch)
        except Exception:
            self._failures += 1
            log.exception(self._says(f"a batch of {len(batch)} failed"))
            if len(batch) == 1:
                batch[0].future.set_exception(EmbeddingFailed())
                return
            for job in batch:
                self._serve([job])
            return
        finally:
            self._running_since = None
        ran = time.monotonic() - started
        self._failures = 0
        if self._observe:
            self._observe(len(batch), ran)
        for job, vector in zip(batch, vectors, strict=True):
            job.future.set_result(Embedded(vector, started - job.submitted, ran))

    def _embed(self, batch: Sequence[_Job]) -> Vectors:
        images = np.stack([job.pixels for job in batch])
        modalities = np.array([job.modality.index for job in batch], np.int64)
        vectors = self._embedder.embed(images, modalities)
        if vectors.shape != (len(batch), self._embedder.card.dimension):
            raise ValueError(f"expected {(len(batch), self._embedder.card.dimension)}, found {vectors.shape}")
        return vectors
