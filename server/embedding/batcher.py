"""Batching of images across callers. Inference threads take whatever is waiting, without a timer; queries go first."""

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
from server.domain.errors import EmbeddingFailed, NotReady
from server.embedding.session import Embedder, Vectors
from server.hardware.cpu import lower_priority

__all__ = [
    "IMPORT_NICENESS",
    "LANE_NICENESS",
    "SHUTTING_DOWN",
    "Batcher",
    "CpuLanes",
    "InferenceDied",
    "InferenceResult",
    "Priority",
    "WorkerPool",
]

STALL_S = 30.0
"""A batch that runs longer than this makes the server not ready."""

HANG_S = 300.0
"""A batch that runs longer than this is assumed never to end: its device counts as lost."""

LANE_NICENESS = 5
"""Niceness of the query lanes. No caller waits for a lane in the middle of a batch, and the threads that feed the lanes
finish sooner."""

IMPORT_NICENESS = 10
"""Niceness of the import lanes and of decoding for imports, relative to queries."""

QUIET_S = 0.25
"""Time without a query after which imports use all cores."""

IMPORT_PAUSE_RATIO = 1.0
"""Pause of an import lane after each batch while queries arrive, as a multiple of the batch's duration. It also slows
the import's decoding and storing, which compete with queries for the interpreter lock."""

_MAX_FAILURES_IN_A_ROW = 3
_WATCHDOG_CHECKS = 20  # per HANG_S
SHUTTING_DOWN = "the server is shutting down"

log = logging.getLogger(__name__)


class InferenceDied(RuntimeError):
    """An inference thread has terminated or hangs. The state of its device is unknown: restart the process."""


class Priority(IntEnum):
    """Order of service. All images of a batch have the same priority, so that a query never waits for an import."""

    QUERY = 0
    IMPORT = 1


@dataclass(frozen=True, slots=True)
class CpuLanes:
    """Parallel batches on a CPU: ``count`` threads per priority, all using the same ``embedders`` (by model name)."""

    embedders: Mapping[str, Embedder]
    count: int


@dataclass(frozen=True, slots=True)
class InferenceResult:
    """An embedding float32 ``[D]`` of unit length, and the seconds its image waited and its batch ran."""

    vector: Vectors
    queue_s: float
    embed_s: float


@dataclass(frozen=True, slots=True)
class _PendingImage:
    pixels: NDArray[np.uint8]
    modality: Modality
    future: Future[InferenceResult] = field(default_factory=Future)
    submitted: float = field(default_factory=time.monotonic)


@dataclass(frozen=True, slots=True)
class _Batch:
    model: str
    images: Sequence[_PendingImage]


class Batcher:
    """Batches the images of many callers in supervised threads: one per device, and optionally ``lanes`` on the CPU.

    A device is a mapping from model names to embedders. A model may be on several devices; its images go to the first
    idle one.

    1. An idle thread takes the longest-waiting image, with its share of the images that wait for the same model at the
       same priority, up to the embedder's ``largest_batch``, and starts immediately. Queries precede imports.
    2. With ``lanes``, the only device, which uses all cores, runs single queries. Several waiting queries go to the
       lanes: threads that do not synchronise after every layer have a higher throughput. Imports have lanes of their
       own, so that no query waits for an import's batch; while queries arrive, one import lane continues at half speed.
    3. Cancelled images are dropped when a batch is formed.
    4. If a batch fails, its images are run one by one; those that fail again fail with ``EmbeddingFailed``.
    5. If a thread terminates or a batch runs longer than ``hang_s``, all pending and future calls fail with
       ``NotReady``.

    ``observe(model, images, seconds)`` is called after each successful batch.
    """

    def __init__(
        self,
        devices: Sequence[Mapping[str, Embedder]],
        observe: Callable[[str, int, float], None] | None = None,
        *,
        lanes: CpuLanes | None = None,
        hang_s: float = HANG_S,
    ) -> None:
        self._observe = observe
        self._hang_s = hang_s
        self._waiting: dict[Priority, dict[str, deque[_PendingImage]]] = {
            priority: defaultdict(deque) for priority in Priority
        }
        self._lock = threading.Lock()
        self._last_query = -math.inf
        self._ended: str | None = None
        self._stopped = threading.Event()
        self.died: Future[None] = Future()
        """Fails with ``InferenceDied`` when a device is lost; completes normally when the batcher is closed."""
        self._single_query_pool: WorkerPool | None = None
        self._pools: dict[Priority, WorkerPool] = {}
        self._threads = self._create_workers(devices, lanes)
        self._start_workers()

    @property
    def depth(self) -> int:
        """Number of waiting images."""
        return sum(map(self._depth, Priority))

    def problems(self) -> list[str]:
        """Return the reasons why the batcher is not ready; empty if it is ready."""
        with self._lock:
            if self._ended:
                return [self._ended]
        return list(dict.fromkeys(problem for thread in self._threads for problem in thread.problems()))

    def submit(
        self, model: str, pixels: NDArray[np.uint8], modality: Modality, priority: Priority
    ) -> Future[InferenceResult]:
        """Queue one crop, uint8 ``[H, W, 3]`` of the model's input size.

        The future fails with ``EmbeddingFailed`` if the model fails on this image, with ``NotReady`` if the batcher
        ends first.

        Raises:
            NotReady: the batcher has ended.
        """
        image = _PendingImage(pixels, modality)
        with self._lock:
            if self._ended:
                raise NotReady([self._ended])
            self._waiting[priority][model].append(image)
            if priority is Priority.QUERY:
                self._last_query = image.submitted
            self._notify()
        return image.future

    def close(self) -> None:
        """End each thread after its current batch; waiting images fail with ``NotReady``.

        A thread that hangs is abandoned.
        """
        self._end(SHUTTING_DOWN)
        for thread in self._threads:
            while thread.is_alive() and thread.running_s() <= self._hang_s:
                thread.join(self._hang_s / _WATCHDOG_CHECKS)
        with suppress(InvalidStateError):
            self.died.set_result(None)

    def fail(self, reason: str, images: Iterable[_PendingImage]) -> None:
        """End the batcher because a device is lost; ``images`` is the batch that the device was running."""
        self._end(reason)
        self._reject(images)
        with suppress(InvalidStateError):  # another device was lost first
            self.died.set_exception(InferenceDied(reason))

    def next_batch(self, pool: WorkerPool, embedders: Mapping[str, Embedder], quiet_s: float) -> _Batch | None:
        """Return the next batch for a thread of ``pool``, which calls :meth:`release` when it is done.

        Blocks while there is none and until ``quiet_s`` after the last query. Returns None once the batcher has ended.
        """
        with self._lock:
            while not self._ended:
                if (delay := self._last_query + quiet_s - time.monotonic()) > 0:
                    pool.work_available.wait(delay)
                elif batch := self._form_batch(pool, embedders):
                    pool.idle -= 1
                    return batch
                else:
                    pool.work_available.wait()
        return None

    def release(self, pool: WorkerPool) -> None:
        """Mark a thread of ``pool`` as idle."""
        with self._lock:
            pool.idle += 1
            self._notify()

    def yield_to_queries(self, seconds: float) -> None:
        """Sleep for ``seconds`` if a query arrived recently."""
        if time.monotonic() - self._last_query < QUIET_S:
            self._stopped.wait(seconds)

    def record_run(self, batch: _Batch, seconds: float) -> None:
        """Report a successful batch to the observer."""
        if self._observe:
            self._observe(batch.model, len(batch.images), seconds)

    def _create_workers(
        self, devices: Sequence[Mapping[str, Embedder]], lanes: CpuLanes | None
    ) -> list[_InferenceThread]:
        """Create the threads and the pools that they belong to."""
        if lanes is None:
            pool = WorkerPool(self._lock, tuple(Priority), len(devices))
            self._pools = dict.fromkeys(Priority, pool)
            return [
                _InferenceThread(self, f"inference-{number}", pool, each, dict.fromkeys(each, 0))
                for number, each in enumerate(devices)
            ]
        (device,) = devices
        self._single_query_pool = WorkerPool(self._lock, (Priority.QUERY,), 1)
        self._pools = {priority: WorkerPool(self._lock, (priority,), lanes.count) for priority in Priority}
        failures = dict.fromkeys(device, 0)
        threads = [_InferenceThread(self, "inference-0", self._single_query_pool, device, dict.fromkeys(device, 0))]
        for number in range(lanes.count):
            queries, imports = self._pools[Priority.QUERY], self._pools[Priority.IMPORT]
            threads += [
                _InferenceThread(self, f"query-{number}", queries, lanes.embedders, failures, niceness=LANE_NICENESS),
                _InferenceThread(
                    self,
                    f"import-{number}",
                    imports,
                    lanes.embedders,
                    failures,
                    niceness=IMPORT_NICENESS,
                    quiet_s=QUIET_S if number else 0.0,
                    pause_ratio=IMPORT_PAUSE_RATIO,
                ),
            ]
        return threads

    def _start_workers(self) -> None:
        for thread in self._threads:
            thread.start()
        threading.Thread(target=self._watch, name="inference-watch", daemon=True).start()

    def _watch(self) -> None:
        """Detect threads that hang."""
        while not self._stopped.wait(self._hang_s / _WATCHDOG_CHECKS):
            for thread in self._threads:
                if (seconds := thread.running_s()) > self._hang_s:
                    log.critical(reason := f"{thread.name} hangs: a batch has been running for {seconds:.0f} s")
                    self.fail(reason, thread.batch)

    def _end(self, reason: str) -> None:
        """Stop all threads, and fail all waiting images."""
        self._stopped.set()
        with self._lock:
            self._ended = self._ended or reason
            waiting = [image for models in self._waiting.values() for images in models.values() for image in images]
            for models in self._waiting.values():
                models.clear()
            for thread in self._threads:
                thread.pool.work_available.notify_all()
        self._reject(image for image in waiting if image.future.set_running_or_notify_cancel())

    def _reject(self, images: Iterable[_PendingImage]) -> None:
        for image in images:
            with suppress(InvalidStateError):  # it has a result already
                image.future.set_exception(NotReady([self._ended or ""]))

    def _form_batch(self, pool: WorkerPool, embedders: Mapping[str, Embedder]) -> _Batch | None:
        """Remove and return the images that an idle thread of ``pool`` should run now; None if there are none."""
        for priority in pool.priorities:
            if pool is not self._pool_for(priority):
                continue
            while waiting := self._longest_waiting(priority, embedders):
                model, queue = waiting
                count = min(pool.share(len(queue)), embedders[model].largest_batch)
                taken = [queue.popleft() for _ in range(count)]
                if images := [image for image in taken if image.future.set_running_or_notify_cancel()]:
                    return _Batch(model, images)
        return None

    def _pool_for(self, priority: Priority) -> WorkerPool:
        """Return the pool that should take the images waiting at ``priority``."""
        lanes, single = self._pools[priority], self._single_query_pool
        if priority is Priority.QUERY and single and not (single.running or lanes.running):
            return single if self._depth(priority) == 1 else lanes
        return lanes

    def _notify(self) -> None:
        """Wake the pools that have work. Call it, with the lock held, after any change that may give them some."""
        for priority in Priority:
            if self._depth(priority):
                self._pool_for(priority).work_available.notify_all()

    def _depth(self, priority: Priority) -> int:
        return sum(len(images) for images in list(self._waiting[priority].values()))

    def _longest_waiting(self, priority: Priority, models: Iterable[str]) -> tuple[str, deque[_PendingImage]] | None:
        """Return the model with the longest-waiting image, and its queue."""
        queues = self._waiting[priority]
        candidates = [model for model in models if queues[model]]
        if not candidates:
            return None
        oldest = min(candidates, key=lambda model: queues[model][0].submitted)
        return oldest, queues[oldest]


class WorkerPool:
    """Threads that take the same work; any idle one serves it."""

    def __init__(self, lock: threading.Lock, priorities: Sequence[Priority], threads: int) -> None:
        self.priorities = priorities
        self.work_available = threading.Condition(lock)
        self.idle = threads
        """Number of threads without a batch."""
        self._threads = threads

    @property
    def running(self) -> bool:
        """Whether any thread has a batch."""
        return self.idle < self._threads

    def share(self, waiting: int) -> int:
        """Return how many of ``waiting`` images one idle thread should take."""
        return math.ceil(waiting / self.idle)


class _InferenceThread(threading.Thread):
    """A thread of a pool. Its embedders are its own, or shared by all lanes."""

    def __init__(
        self,
        batcher: Batcher,
        name: str,
        pool: WorkerPool,
        embedders: Mapping[str, Embedder],
        failures: dict[str, int],
        *,
        niceness: int = 0,
        quiet_s: float = 0.0,
        pause_ratio: float = 0.0,
    ) -> None:
        """See ``QUIET_S`` and ``IMPORT_PAUSE_RATIO``; with 0 the thread ignores queries.

        ``failures`` counts consecutive failures per model over all threads with the same embedders.
        """
        super().__init__(name=name, daemon=True)
        self.pool = pool
        self._batcher, self._embedders, self._failures = batcher, embedders, failures
        self._niceness, self._quiet_s, self._pause_ratio = niceness, quiet_s, pause_ratio
        self._running: tuple[str, float] | None = None
        self.batch: Sequence[_PendingImage] = ()
        """All images of the latest batch."""

    def run(self) -> None:
        try:
            lower_priority(self._niceness)
            while batch := self._batcher.next_batch(self.pool, self._embedders, self._quiet_s):
                self.batch = batch.images
                started = time.monotonic()
                self._serve(batch)
                self._batcher.release(self.pool)
                if self._pause_ratio:
                    self._batcher.yield_to_queries(self._pause_ratio * (time.monotonic() - started))
        except BaseException:  # however this thread ends, the callers must be informed
            log.exception(reason := f"{self.name}, which runs {', '.join(self._embedders)}, has died")
            self._batcher.fail(reason, self.batch)

    def running_s(self) -> float:
        """Return the seconds that the current run of a model has taken; 0 if none is running."""
        running = self._running
        return time.monotonic() - running[1] if running else 0.0

    def problems(self) -> list[str]:
        """Return the reasons why this thread is not ready; empty if it is ready."""
        found = [
            f"model {model}: the last {failures} runs failed"
            for model, failures in self._failures.items()
            if failures >= _MAX_FAILURES_IN_A_ROW
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
            log.exception("model %s: a batch of %d failed", batch.model, len(batch.images))
            if len(batch.images) == 1:
                batch.images[0].future.set_exception(EmbeddingFailed())
                return
            for image in batch.images:
                self._serve(_Batch(batch.model, [image]))
            return
        finally:
            self._running = None
        seconds = time.monotonic() - started
        self._failures[batch.model] = 0
        self._batcher.record_run(batch, seconds)
        for image, vector in zip(batch.images, vectors, strict=True):
            image.future.set_result(InferenceResult(vector, started - image.submitted, seconds))

    def _embed(self, batch: _Batch) -> Vectors:
        embedder = self._embedders[batch.model]
        pixels = [image.pixels for image in batch.images]
        modalities = np.array([image.modality.index for image in batch.images], np.int64)
        vectors = embedder.embed(pixels, modalities)
        if vectors.shape != (len(batch.images), embedder.card.dimension):
            raise ValueError(f"expected {(len(batch.images), embedder.card.dimension)}, found {vectors.shape}")
        return vectors
