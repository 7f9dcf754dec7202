"""Inference threads take whatever is waiting: no timer, queries first, nobody left waiting for ever."""

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

import numpy as np
from numpy.typing import NDArray

from models.card import Modality
from server.embedding.cores import give_way
from server.embedding.session import Embedder, Vectors
from server.errors import EmbeddingFailed, NotReady

__all__ = ["IMPORTS_NICE", "LANES_NICE", "Batcher", "Embedded", "InferenceDied", "Lanes", "Priority"]

STALL_S = 30.0
"""A batch that runs longer than this turns ready off."""

HANG_S = 300.0
"""A batch that runs longer than this will never end: its device counts as lost."""

LANES_NICE = 5
"""By how much many queries' batches give way to what feeds them. Nothing waits for a lane in the middle of its batch,
and all others are done sooner."""

IMPORTS_NICE = 10
"""By how much what imports do gives way to queries."""

QUIET_S = 0.25
"""For so long no query may have come when imports take all cores."""

REST = 1.0
"""How long an import rests after each batch while queries come, as a share of what the batch took. What it decodes and
stores, for which it needs Python's lock as queries do, comes no faster than it is embedded."""

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
class Lanes:
    """Batches side by side: ``embedders`` by model, each for ``count`` threads of either priority at once."""

    embedders: Mapping[str, Embedder]
    count: int


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
    """Batches the images of many callers, in supervised threads: one for each of ``devices``, or ``lanes`` beside it.

    A device is what runs on it: embedders by the name of their model. A model may be on several: then what waits for it
    goes to the one that is free first.

    1. A thread takes what has waited longest, with its share of what waits for the same model at the same priority, up
       to the embedder's ``largest_batch``, and starts at once. Queries of any model go before imports of any.
    2. With ``lanes`` the one device, which has all cores, runs lone queries. Several go to lanes: threads that do not
       wait for one another at every layer do more in all. Imports have as many lanes of their own, so that no query
       waits for an import's batch; while queries come, one of those goes on, with its share, at half of its speed.
    3. A cancelled image is dropped when its batch is formed.
    4. A batch that fails is run again image by image; the bad one fails alone, with ``EmbeddingFailed``.
    5. However a thread ends, every waiting caller gets ``NotReady``, and so does every later one. A batch that runs for
       ``hang_s`` is an end as well.

    ``observe(model, images, seconds)`` is called after each run of a model.
    """

    def __init__(
        self,
        devices: Sequence[Mapping[str, Embedder]],
        observe: Callable[[str, int, float], None] | None = None,
        *,
        lanes: Lanes | None = None,
        hang_s: float = HANG_S,
    ) -> None:
        self._observe = observe
        self._hang_s = hang_s
        self._waiting: dict[Priority, dict[str, deque[_Job]]] = {priority: defaultdict(deque) for priority in Priority}
        self._lock = threading.Lock()
        self._queried = -math.inf  # when the last query came
        self._ended: str | None = None
        self._over = threading.Event()
        self.died: Future[None] = Future()
        """Gets ``InferenceDied`` when a device is lost; done without it once the batcher was closed."""
        self._lone: _Crew | None = None
        self._crews: dict[Priority, _Crew] = {}
        self._hire(devices, lanes)
        for thread in self._threads:
            thread.start()
        threading.Thread(target=self._watch, name="inference-watch", daemon=True).start()

    @property
    def depth(self) -> int:
        """Images that wait."""
        return sum(map(self._depth, Priority))

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
            self._wake()
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

    def _hire(self, devices: Sequence[Mapping[str, Embedder]], lanes: Lanes | None) -> None:
        """Make the threads, and the crews that they are in."""
        if lanes is None:
            crew = _Crew(self._lock, tuple(Priority), len(devices))
            self._crews = dict.fromkeys(Priority, crew)
            self._threads = [
                _InferenceThread(self, f"inference-{number}", crew, each, dict.fromkeys(each, 0))
                for number, each in enumerate(devices)
            ]
            return
        (device,) = devices
        self._lone = _Crew(self._lock, (Priority.QUERY,), 1)
        self._crews = {priority: _Crew(self._lock, (priority,), lanes.count) for priority in Priority}
        self._threads = [_InferenceThread(self, "inference-0", self._lone, device, dict.fromkeys(device, 0))]
        failures = dict.fromkeys(device, 0)
        for number in range(lanes.count):
            query = _InferenceThread(
                self, f"query-{number}", self._crews[Priority.QUERY], lanes.embedders, failures, nice=LANES_NICE
            )
            imported = _InferenceThread(
                self,
                f"import-{number}",
                self._crews[Priority.IMPORT],
                lanes.embedders,
                failures,
                nice=IMPORTS_NICE,
                quiet_s=QUIET_S if number else 0.0,
                rest=REST,
            )
            self._threads += [query, imported]

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
            for thread in self._threads:
                thread.crew.comes.notify_all()
        self._abandon(job for job in waiting if job.future.set_running_or_notify_cancel())

    def _abandon(self, jobs: Iterable[_Job]) -> None:
        """Answer those who will never be served."""
        for job in jobs:
            with suppress(InvalidStateError):  # it was served after all
                job.future.set_exception(NotReady([self._ended or ""]))

    def take(self, crew: _Crew, embedders: Mapping[str, Embedder], quiet_s: float) -> _Batch | None:
        """The next batch for a thread of a crew, which says :meth:`done` after it.

        Sleeps while there is none, and until the last query came ``quiet_s`` ago. None when the batcher has ended.
        """
        with self._lock:
            while not self._ended:
                if (too_early := self._queried + quiet_s - time.monotonic()) > 0:
                    crew.comes.wait(too_early)
                elif batch := self._batch(crew, embedders):
                    crew.free -= 1
                    return batch
                else:
                    crew.comes.wait()
        return None

    def done(self, crew: _Crew) -> None:
        """A thread of the crew has no batch any more."""
        with self._lock:
            crew.free += 1
            self._wake()

    def rest(self, seconds: float) -> None:
        """Sleep, if queries have come of late."""
        if time.monotonic() - self._queried < QUIET_S:
            self._over.wait(seconds)

    def _batch(self, crew: _Crew, embedders: Mapping[str, Embedder]) -> _Batch | None:
        """What a thread of that crew is to run now, if anything."""
        for priority in crew.priorities:
            if crew is not self._crew_for(priority):
                continue
            while waiting := self._longest_waiting(priority, embedders):
                model, queue = waiting
                count = min(crew.share(len(queue)), embedders[model].largest_batch)
                taken = [queue.popleft() for _ in range(count)]
                if jobs := [job for job in taken if job.future.set_running_or_notify_cancel()]:
                    return _Batch(model, jobs)
        return None

    def _crew_for(self, priority: Priority) -> _Crew:
        """Whose turn it is with what waits at a priority."""
        lanes = self._crews[priority]
        if priority is Priority.QUERY and self._lone and not (self._lone.running or lanes.running):
            return self._lone if self._depth(priority) == 1 else lanes
        return lanes

    def _wake(self) -> None:
        """Wake those whose turn it is. To be called, with the lock held, after whatever may change that."""
        for priority in Priority:
            if self._depth(priority):
                self._crew_for(priority).comes.notify_all()

    def _depth(self, priority: Priority) -> int:
        return sum(len(jobs) for jobs in list(self._waiting[priority].values()))

    def _longest_waiting(self, priority: Priority, models: Iterable[str]) -> tuple[str, deque[_Job]] | None:
        queues = self._waiting[priority]
        candidates = [model for model in models if queues[model]]
        if not candidates:
            return None
        oldest = min(candidates, key=lambda model: queues[model][0].submitted)
        return oldest, queues[oldest]

    def served(self, batch: _Batch, seconds: float) -> None:
        """Note a run of a model."""
        if self._observe:
            self._observe(batch.model, len(batch.jobs), seconds)


class _Crew:
    """Threads that take the same work: whichever is free."""

    def __init__(self, lock: threading.Lock, priorities: Sequence[Priority], threads: int) -> None:
        self.priorities = priorities
        self.comes = threading.Condition(lock)
        self.free = threads
        """Threads without a batch."""
        self._threads = threads

    @property
    def running(self) -> bool:
        """Whether a thread has a batch."""
        return self.free < self._threads

    def share(self, waiting: int) -> int:
        """How many of those that wait are for one of the free threads."""
        return math.ceil(waiting / self.free)


class _InferenceThread(threading.Thread):
    """One of a crew, with embedders that it has to itself or that may be used by several."""

    def __init__(
        self,
        batcher: Batcher,
        name: str,
        crew: _Crew,
        embedders: Mapping[str, Embedder],
        failures: dict[str, int],
        *,
        nice: int = 0,
        quiet_s: float = 0.0,
        rest: float = 0.0,
    ) -> None:
        """``quiet_s``, ``rest``: see ``QUIET_S`` and ``REST``; 0: queries do not matter to it.

        ``failures`` in a row of each model are those of all threads with the same embedders.
        """
        super().__init__(name=name, daemon=True)
        self.crew = crew
        self._batcher, self._embedders, self._failures = batcher, embedders, failures
        self._nice, self._quiet_s, self._rest = nice, quiet_s, rest
        self._running: tuple[str, float] | None = None
        self.jobs: Sequence[_Job] = ()
        """The latest batch, all of it."""

    def run(self) -> None:
        try:
            give_way(self._nice)
            while batch := self._batcher.take(self.crew, self._embedders, self._quiet_s):
                self.jobs = batch.jobs
                started = time.monotonic()
                self._serve(batch)
                self._batcher.done(self.crew)
                if self._rest:
                    self._batcher.rest(self._rest * (time.monotonic() - started))
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
        embedder = self._embedders[batch.model]
        images = [job.pixels for job in batch.jobs]
        modalities = np.array([job.modality.index for job in batch.jobs], np.int64)
        vectors = embedder.embed(images, modalities)
        if vectors.shape != (len(batch.jobs), embedder.card.dimension):
            raise ValueError(f"expected {(len(batch.jobs), embedder.card.dimension)}, found {vectors.shape}")
        return vectors
