"""One inference thread a device takes whatever is waiting: no timer, queries first, nobody left waiting for ever."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cache

import numpy as np
from numpy.typing import NDArray

from models.card import Modality
from server.embedding.cores import give_way
from server.embedding.session import Embedder, Vectors
from server.errors import EmbeddingFailed, NotReady

__all__ = ["IMPORTS_NICE", "Batcher", "Embedded", "Imports", "InferenceDied", "Priority"]

STALL_S = 30.0
"""A batch that runs longer than this turns ready off."""

HANG_S = 300.0
"""A batch that runs longer than this will never end: its device counts as lost."""

IMPORTS_NICE = 10
"""By how much what imports do gives way to queries."""

QUIET_S = 0.25
"""For so long no query may have come when imports take all cores."""

_FAILURES_IN_A_ROW = 3
_LOOKS = 20  # at each thread, until a batch counts as hanging
_CLOSED = "the server is shutting down"

log = logging.getLogger(__name__)


class InferenceDied(RuntimeError):
    """An inference thread has ended by itself, or hangs. Its device is in no known state, so the process must be
    restarted."""


class Priority(IntEnum):
    """Who goes first. A batch holds one priority only, so that a query never pays for an import."""

    QUERY = 0
    IMPORT = 1


@dataclass(frozen=True, slots=True)
class Imports:
    """How imports run beside queries: ``make(model)`` gives an embedder that ``threads`` threads may use at once."""

    make: Callable[[str], Embedder]
    threads: int


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


@dataclass(frozen=True, slots=True)
class _Batch:
    model: str
    jobs: Sequence[_Job]


class Batcher:
    """Batches the images of many callers, in one supervised thread for each of ``devices``.

    A device is what runs on it: embedders by the name of their model. A model may be on several: then what waits for it
    goes to the one that is free first.

    1. A thread takes what has waited longest, with all that waits for the same model at the same priority, up to the
       embedder's ``largest_batch``, and starts at once. Queries of any model go before imports of any. With
       ``imports`` these have threads of their own, which give way to all others, and embedders of their own, made when
       they are needed: no query waits for an import's batch. While queries come, all but one of these threads rest.
    2. A cancelled image is dropped when its batch is formed.
    3. A batch that fails is run again image by image; the bad one fails alone, with ``EmbeddingFailed``.
    4. However a thread ends, every waiting caller gets ``NotReady``, and so does every later one. A batch that runs for
       ``hang_s`` is an end as well.

    ``observe(model, images, seconds)`` is called after each run of a model.
    """

    def __init__(
        self,
        devices: Sequence[Mapping[str, Embedder]],
        observe: Callable[[str, int, float], None] | None = None,
        *,
        imports: Imports | None = None,
        hang_s: float = HANG_S,
    ) -> None:
        self._observe = observe
        self._hang_s = hang_s
        self._waiting: dict[Priority, dict[str, deque[_Job]]] = {priority: defaultdict(deque) for priority in Priority}
        self._lock = threading.Lock()
        self._comes = dict.fromkeys(Priority, threading.Condition(self._lock))
        if imports:  # none of whose threads is woken by a query
            self._comes[Priority.IMPORT] = threading.Condition(self._lock)
        self._queried = -math.inf  # when the last query came
        self._ended: str | None = None
        self._over = threading.Event()
        self.died: Future[None] = Future()
        """Gets ``InferenceDied`` when a device is lost; done without it once the batcher was closed."""
        priorities = (Priority.QUERY,) if imports else tuple(Priority)
        self._threads = [_InferenceThread(self, str(number), each, priorities) for number, each in enumerate(devices)]
        if imports:
            made = _Made(imports.make, devices[0])
            self._threads += [_ImportThread(self, number, devices[0], made) for number in range(imports.threads)]
        for thread in self._threads:
            thread.start()
        threading.Thread(target=self._watch, name="inference-watch", daemon=True).start()

    @property
    def depth(self) -> int:
        """Images that wait."""
        return sum(len(jobs) for models in self._waiting.values() for jobs in list(models.values()))

    def problems(self) -> list[str]:
        """Why this batcher is not ready; empty when it is."""
        with self._lock:
            if self._ended:
                return [self._ended]
        return list(dict.fromkeys(problem for thread in self._threads for problem in thread.problems()))

    def submit(self, model: str, pixels: NDArray[np.uint8], modality: Modality, priority: Priority) -> Future[Embedded]:
        """Queue one crop, uint8 ``[H, W, 3]`` of the size that the model's card asks for.

        The future gives the vector, or ``EmbeddingFailed``, or ``NotReady`` if the threads end first.

        Raises:
            NotReady: they have ended.
        """
        job = _Job(pixels, modality)
        with self._lock:
            if self._ended:
                raise NotReady([self._ended])
            self._waiting[priority][model].append(job)
            if priority is Priority.QUERY:
                self._queried = job.submitted
            self._comes[priority].notify_all()
        return job.future

    def close(self) -> None:
        """End each thread after the batch it is running; whoever still waits gets ``NotReady``.

        A thread that hangs is left behind.
        """
        self._end(_CLOSED)
        for thread in self._threads:
            while thread.is_alive() and thread.running_s() <= self._hang_s:
                thread.join(self._hang_s / _LOOKS)
        with suppress(InvalidStateError):
            self.died.set_result(None)

    def lose(self, reason: str, jobs: Iterable[_Job]) -> None:
        """A device is gone, and with it the jobs it was working on: nothing can be embedded any more."""
        self._end(reason)
        self._abandon(jobs)
        with suppress(InvalidStateError):  # it is not the first
            self.died.set_exception(InferenceDied(reason))

    def _watch(self) -> None:
        while not self._over.wait(self._hang_s / _LOOKS):
            for thread in self._threads:
                if (seconds := thread.running_s()) > self._hang_s:
                    log.critical(reason := f"{thread.name} hangs: a batch has been running for {seconds:.0f} s")
                    self.lose(reason, thread.jobs)

    def _end(self, reason: str) -> None:
        """Tell everybody who waits, and whoever comes, that nothing is embedded any more."""
        self._over.set()
        with self._lock:
            self._ended = self._ended or reason
            waiting = [job for models in self._waiting.values() for jobs in models.values() for job in jobs]
            for models in self._waiting.values():
                models.clear()
            for condition in self._comes.values():
                condition.notify_all()
        self._abandon(job for job in waiting if job.future.set_running_or_notify_cancel())

    def _abandon(self, jobs: Iterable[_Job]) -> None:
        """Answer those who will never be served."""
        for job in jobs:
            with suppress(InvalidStateError):  # it was served after all
                job.future.set_exception(NotReady([self._ended or ""]))

    def take(
        self, embedders: Mapping[str, Embedder], priorities: Sequence[Priority], quiet_s: float = 0.0
    ) -> _Batch | None:
        """The next batch for one of ``embedders``, of the first of ``priorities`` that any is of.

        Sleeps while there is none, and until the last query came ``quiet_s`` ago. None when the batcher has ended.
        """
        comes = self._comes[priorities[0]]
        with self._lock:
            while not self._ended:
                if (too_early := self._queried + quiet_s - time.monotonic()) > 0:
                    comes.wait(too_early)
                    continue
                model, waiting = self._longest_waiting(embedders, priorities)
                if waiting is None:
                    comes.wait()
                    continue
                jobs: list[_Job] = []
                while waiting and len(jobs) < embedders[model].largest_batch:
                    job = waiting.popleft()
                    if job.future.set_running_or_notify_cancel():
                        jobs.append(job)
                if jobs:
                    return _Batch(model, jobs)
        return None

    def _longest_waiting(self, models: Iterable[str], priorities: Sequence[Priority]) -> tuple[str, deque[_Job] | None]:
        for queues in (self._waiting[priority] for priority in priorities):
            if candidates := [model for model in models if queues[model]]:
                oldest = min(candidates, key=lambda model: queues[model][0].submitted)
                return oldest, queues[oldest]
        return "", None

    def served(self, batch: _Batch, seconds: float) -> None:
        """Note a run of a model."""
        if self._observe:
            self._observe(batch.model, len(batch.jobs), seconds)


class _InferenceThread(threading.Thread):
    """The one thread that uses a device."""

    quiet_s = 0.0
    """For how long no query may have come when it takes a batch."""

    def __init__(
        self,
        batcher: Batcher,
        name: str,
        embedders: Mapping[str, Embedder],
        priorities: Sequence[Priority],
    ) -> None:
        super().__init__(name=f"inference-{name}", daemon=True)
        self._batcher, self._embedders, self._priorities = batcher, embedders, priorities
        self._running: tuple[str, float] | None = None
        self._failures: dict[str, int] = dict.fromkeys(embedders, 0)
        self.jobs: Sequence[_Job] = ()
        """The latest batch, all of it."""

    def run(self) -> None:
        try:
            while batch := self._batcher.take(self._embedders, self._priorities, self.quiet_s):
                self.jobs = batch.jobs
                self._serve(batch)
        except BaseException:  # the supervised exit: nothing may kill this thread unseen
            log.exception(reason := f"{self.name}, which runs {', '.join(self._embedders)}, has died")
            self._batcher.lose(reason, self.jobs)

    def running_s(self) -> float:
        """How long the present run of a model has taken; 0 without one."""
        running = self._running
        return time.monotonic() - running[1] if running else 0.0

    def problems(self) -> list[str]:
        """Why this device is not ready; empty when it is."""
        found = [
            f"model {model}: the last {failures} runs failed"
            for model, failures in self._failures.items()
            if failures >= _FAILURES_IN_A_ROW
        ]
        if (running := self._running) is not None and (seconds := self.running_s()) > STALL_S:
            found.append(f"model {running[0]}: a batch has been running for {seconds:.0f} s")
        return found

    def _serve(self, batch: _Batch) -> None:
        started = time.monotonic()
        self._running = batch.model, started
        try:
            vectors = self._embed(batch)
        except Exception:
            self._failures[batch.model] += 1
            log.exception("model %s: a batch of %d failed", batch.model, len(batch.jobs))
            if len(batch.jobs) == 1:
                batch.jobs[0].future.set_exception(EmbeddingFailed())
                return
            for job in batch.jobs:
                self._serve(_Batch(batch.model, [job]))
            return
        finally:
            self._running = None
        ran = time.monotonic() - started
        self._failures[batch.model] = 0
        self._batcher.served(batch, ran)
        for job, vector in zip(batch.jobs, vectors, strict=True):
            job.future.set_result(Embedded(vector, started - job.submitted, ran))

    def _embed(self, batch: _Batch) -> Vectors:
        embedder = self._embedder(batch.model)
        images = np.stack([job.pixels for job in batch.jobs])
        modalities = np.array([job.modality.index for job in batch.jobs], np.int64)
        vectors = embedder.embed(images, modalities)
        if vectors.shape != (len(batch.jobs), embedder.card.dimension):
            raise ValueError(f"expected {(len(batch.jobs), embedder.card.dimension)}, found {vectors.shape}")
        return vectors

    def _embedder(self, model: str) -> Embedder:
        return self._embedders[model]


class _ImportThread(_InferenceThread):
    """Runs imports behind all other threads, as a session's threads do that it makes: they have its priority.

    The first import with a model pays for the second session; a server that imports nothing has none.
    """

    def __init__(self, batcher: Batcher, number: int, embedders: Mapping[str, Embedder], made: _Made) -> None:
        super().__init__(batcher, f"import-{number}", embedders, (Priority.IMPORT,))
        self._made, self._failures = made, made.failures
        self.quiet_s = QUIET_S if number else 0.0

    def run(self) -> None:
        give_way(IMPORTS_NICE)
        super().run()

    def _embedder(self, model: str) -> Embedder:
        return self._made.of(model)


class _Made:
    """One embedder of each model for all threads of imports, made by the first that needs it.

    ``failures`` in a row are its own, whichever thread met them.
    """

    def __init__(self, make: Callable[[str], Embedder], models: Iterable[str]) -> None:
        self.failures = dict.fromkeys(models, 0)
        self._make = cache(make)
        self._lock = threading.Lock()

    def of(self, model: str) -> Embedder:
        with self._lock:
            return self._make(model)
