from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future

import numpy as np
import pytest

from models.card import Modality
from server.domain.errors import EmbeddingFailed, NotReady
from server.embedding.batcher import (
    IMPORT_NICENESS,
    LANE_NICENESS,
    Batcher,
    CpuLanes,
    InferenceDied,
    InferenceResult,
    Priority,
    WorkerPool,
)
from tests.server.stub_model import HEIGHT, WIDTH, StubModel, card

LARGEST = 4
POISON = 255


class Gate:
    """An ``Embedder`` that blocks each batch until it is released and fails on images marked ``POISON``."""

    provider = "test"
    largest_batch = LARGEST
    card = card("gate")

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.entered, self.go = threading.Semaphore(0), threading.Semaphore(0)
        self.on_run: Callable[[], None] | None = None

    def embed(self, images: Sequence[np.ndarray], modalities: np.ndarray) -> np.ndarray:
        self.batches.append(marks := [int(image[0, 0, 0]) for image in images])
        self.entered.release()
        self.go.acquire()
        if self.on_run is not None:
            self.on_run()
        if POISON in marks:
            raise RuntimeError("poison")
        return StubModel().embed(images, modalities)


def marked(mark: int) -> np.ndarray:
    pixels = np.random.default_rng(mark).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    pixels[0, 0, 0] = mark
    return pixels


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def batcher(gate: Gate) -> Iterator[Batcher]:
    batcher = Batcher([{"gate": gate}])
    yield batcher
    gate.go.release(1000)
    batcher.close()


def submit(batcher: Batcher, mark: int, priority: Priority = Priority.QUERY) -> Future[InferenceResult]:
    return batcher.submit("gate", marked(mark), Modality.VISIBLE, priority)


def expected(mark: int) -> np.ndarray:
    (vector,) = StubModel().embed(marked(mark)[np.newaxis], np.zeros(1, np.int64))
    return np.asarray(vector)


def test_first_image_starts_immediately_and_later_ones_form_the_next_batch(gate: Gate, batcher: Batcher) -> None:
    futures = [submit(batcher, 0)]
    gate.entered.acquire()
    futures += [submit(batcher, mark) for mark in range(1, 7)]
    gate.go.release(10)
    for mark, future in enumerate(futures):
        np.testing.assert_allclose(future.result(5).vector, expected(mark), atol=1e-6)
    assert gate.batches == [[0], [1, 2, 3, 4], [5, 6]]
    assert futures[1].result().queue_s > 0


def test_queries_precede_imports_and_never_share_a_batch(gate: Gate, batcher: Batcher) -> None:
    first = submit(batcher, 0, Priority.IMPORT)
    gate.entered.acquire()
    rest = [submit(batcher, mark, Priority.IMPORT) for mark in (1, 2)] + [submit(batcher, mark) for mark in (8, 9)]
    gate.go.release(10)
    for future in (first, *rest):
        future.result(5)
    assert gate.batches == [[0], [8, 9], [1, 2]]


def test_one_failing_image_does_not_fail_its_batch(gate: Gate, batcher: Batcher) -> None:
    submit(batcher, 0)
    gate.entered.acquire()
    marks = [1, POISON, 3]
    futures = [submit(batcher, mark) for mark in marks]
    gate.go.release(100)
    for mark, future in zip(marks, futures, strict=True):
        if mark == POISON:
            with pytest.raises(EmbeddingFailed):
                future.result(5)
        else:
            np.testing.assert_allclose(future.result(5).vector, expected(mark), atol=1e-6)
    assert not batcher.problems()


def test_cancelled_image_is_not_embedded(gate: Gate, batcher: Batcher) -> None:
    submit(batcher, 0)
    gate.entered.acquire()
    dropped, kept = submit(batcher, 1), submit(batcher, 2)
    assert dropped.cancel()
    gate.go.release(10)
    kept.result(5)
    assert gate.batches == [[0], [2]]


def test_all_pending_calls_fail_when_a_thread_dies(gate: Gate, batcher: Batcher) -> None:
    gate.on_run = exit_thread
    running = submit(batcher, 0)
    gate.entered.acquire()
    waiting = [submit(batcher, 1), submit(batcher, 2, Priority.IMPORT)]
    assert not batcher.problems()
    gate.go.release()
    for future in (running, *waiting):
        with pytest.raises(NotReady):
            future.result(5)
    with pytest.raises(NotReady):
        submit(batcher, 3)
    assert batcher.problems() == ["inference-0, which runs gate, has died"]


def test_all_pending_calls_fail_when_a_thread_dies_during_a_retry(gate: Gate, batcher: Batcher) -> None:
    submit(batcher, 0)
    gate.entered.acquire()
    futures = [submit(batcher, mark) for mark in (POISON, 2, 3)]
    gate.go.release(2)  # the first image, and the batch that fails
    gate.entered.acquire(), gate.entered.acquire()
    gate.on_run = exit_thread
    gate.go.release(100)
    for future in futures:
        with pytest.raises((NotReady, EmbeddingFailed)):
            future.result(5)


def test_repeated_failures_make_the_batcher_not_ready_until_a_success(gate: Gate, batcher: Batcher) -> None:
    gate.go.release(100)
    for _ in range(3):
        with pytest.raises(EmbeddingFailed):
            submit(batcher, POISON).result(5)
    assert batcher.problems() == ["model gate: the last 3 runs failed"]
    submit(batcher, 1).result(5)
    assert not batcher.problems()


def test_close_fails_waiting_images() -> None:
    gate = Gate()
    batcher = Batcher([{"gate": gate}])
    running = submit(batcher, 0)
    gate.entered.acquire()
    waiting = submit(batcher, 1)
    closing = threading.Thread(target=batcher.close)
    closing.start()
    with pytest.raises(NotReady):
        waiting.result(5)
    gate.go.release()
    closing.join(5)
    assert not closing.is_alive()
    running.result(0)


def test_observer_gets_model_and_size_of_each_batch() -> None:
    gate, seen = Gate(), []
    gate.go.release(100)
    batcher = Batcher([{"gate": gate}], lambda model, images, seconds: seen.append((model, images, seconds >= 0)))
    submit(batcher, 1).result(5)
    batcher.close()
    assert seen == [("gate", 1, True)]


def exit_thread() -> None:
    raise SystemExit


class TwoModels:
    """Two models on one device with a shared gate; records the order of their batches."""

    def __init__(self) -> None:
        self.gate = Gate()
        self.models: list[str] = []

    def embedders(self) -> dict[str, Gate]:
        found = {}
        for name in ("one", "two"):
            found[name] = type("Named", (Gate,), {"embed": self._embed(name)})()
        return found

    def _embed(self, name: str) -> Callable[..., np.ndarray]:
        def embed(_: Gate, images: Sequence[np.ndarray], modalities: np.ndarray) -> np.ndarray:
            self.models.append(name)
            return self.gate.embed(images, modalities)

        return embed


def test_models_on_one_device_are_served_by_longest_wait() -> None:
    twins = TwoModels()
    gate, batcher = twins.gate, Batcher([twins.embedders()])
    expected_order = [("one", 0), ("two", 1), ("one", 2), ("two", 3), ("one", 4)]
    futures = [batcher.submit("one", marked(9), Modality.VISIBLE, Priority.QUERY)]
    gate.entered.acquire()
    futures += [
        batcher.submit(name, marked(mark), Modality.VISIBLE, Priority.QUERY) for name, mark in expected_order[1:]
    ]
    futures += [batcher.submit("two", marked(7), Modality.VISIBLE, Priority.IMPORT)]
    futures += [batcher.submit("one", marked(8), Modality.VISIBLE, Priority.QUERY)]
    gate.go.release(100)
    for future in futures:
        future.result(5)
    assert twins.models == ["one", "two", "one", "two"]
    assert gate.batches == [[9], [1, 3], [2, 4, 8], [7]]
    batcher.close()


def test_images_go_to_the_idle_device() -> None:
    gates = Gate(), Gate()
    gates[1].entered = gates[0].entered
    batcher = Batcher([{"gate": gate} for gate in gates])
    running = []
    for mark in (1, 2):  # separately, or one device would take both
        running.append(submit(batcher, mark))
        gates[0].entered.acquire()
    busy, free = gates if gates[0].batches == [[1]] else gates[::-1]
    waiting = submit(batcher, 3)
    free.go.release(2)
    np.testing.assert_allclose(waiting.result(5).vector, expected(3), atol=1e-6)
    assert (busy.batches, free.batches) == ([[1]], [[2], [3]])
    busy.go.release()
    for mark, future in enumerate(running, 1):
        np.testing.assert_allclose(future.result(5).vector, expected(mark), atol=1e-6)
    batcher.close()


@pytest.mark.parametrize(("waiting", "idle", "share"), [(1, 2, 1), (6, 2, 3), (7, 2, 4), (7, 1, 7)])
def test_idle_threads_share_the_waiting_images(waiting: int, idle: int, share: int) -> None:
    pool = WorkerPool(threading.Lock(), tuple(Priority), 2)
    pool.idle = idle
    assert pool.share(waiting) == share


def test_died_fails_when_a_thread_dies_but_not_on_close(gate: Gate, batcher: Batcher) -> None:
    closed = Batcher([{"gate": Gate()}])
    closed.close()
    assert closed.died.result(0) is None
    assert not batcher.died.done()
    gate.on_run = exit_thread
    gate.go.release()
    submit(batcher, 1)
    with pytest.raises(InferenceDied, match="inference-0, which runs gate, has died"):
        batcher.died.result(5)


def test_hanging_batch_ends_the_batcher(gate: Gate) -> None:
    batcher = Batcher([{"gate": gate}], hang_s=1)
    hanging = submit(batcher, 0)
    gate.entered.acquire()
    waiting = submit(batcher, 1)
    for future in (hanging, waiting):
        with pytest.raises(NotReady):
            future.result(5)
    with pytest.raises(InferenceDied, match="inference-0 hangs: a batch has been running for"):
        batcher.died.result(5)
    with pytest.raises(NotReady):
        submit(batcher, 2)
    batcher.close()  # abandons the thread
    gate.go.release(10)
    with pytest.raises(NotReady):
        hanging.result(0)


def niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


@pytest.fixture
def lane() -> Gate:
    return Gate()


@pytest.fixture
def with_lanes(gate: Gate, lane: Gate) -> Iterator[Batcher]:
    """Return a batcher with two lanes that run ``lane`` and a device that runs ``gate``."""
    batcher = Batcher([{"gate": gate}], lanes=CpuLanes({"gate": lane}, 2))
    yield batcher
    for each in (gate, lane):
        each.go.release(1000)
    batcher.close()


def test_single_queries_run_on_the_whole_device(gate: Gate, lane: Gate, with_lanes: Batcher) -> None:
    gate.go.release(3)
    for mark in (1, 2, 3):
        np.testing.assert_allclose(submit(with_lanes, mark).result(5).vector, expected(mark), atol=1e-6)
    assert (gate.batches, lane.batches) == ([[1], [2], [3]], [])


def test_second_concurrent_query_runs_on_a_lane(gate: Gate, lane: Gate, with_lanes: Batcher) -> None:
    first = submit(with_lanes, 1)
    gate.entered.acquire()
    second = submit(with_lanes, 2)
    lane.go.release()
    np.testing.assert_allclose(second.result(5).vector, expected(2), atol=1e-6)
    assert not first.done()


def test_lanes_run_concurrently_and_share_waiting_images(gate: Gate, lane: Gate, with_lanes: Batcher) -> None:
    futures = [submit(with_lanes, 0)]
    gate.entered.acquire()
    for mark in (1, 2):
        futures.append(submit(with_lanes, mark))
        lane.entered.acquire()  # each on its own lane
    futures += [submit(with_lanes, mark) for mark in range(3, 9)]
    gate.go.release()  # several are waiting, so the device takes none
    futures[0].result(5)
    lane.go.release()
    lane.entered.acquire()  # the idle lane takes a full batch
    lane.go.release(100)
    for mark, future in enumerate(futures):
        np.testing.assert_allclose(future.result(5).vector, expected(mark), atol=1e-6)
    assert gate.batches == [[0]]
    assert sorted(lane.batches) == [[1], [2], [3, 4, 5, 6], [7, 8]]


def test_single_query_returns_to_the_device_after_a_lane_was_used(gate: Gate, lane: Gate) -> None:
    batcher = Batcher([{"gate": gate}], lanes=CpuLanes({"gate": lane}, 1))
    first = submit(batcher, 1)
    gate.entered.acquire()
    second = submit(batcher, 2)
    lane.entered.acquire()
    gate.go.release(2)
    first.result(5)
    third = submit(batcher, 3)
    lane.go.release()
    for mark, future in ((2, second), (3, third)):
        np.testing.assert_allclose(future.result(5).vector, expected(mark), atol=1e-6)
    assert (gate.batches, lane.batches) == ([[1], [3]], [[2]])
    batcher.close()


def test_batcher_ends_when_a_lane_dies(gate: Gate, lane: Gate, with_lanes: Batcher) -> None:
    lane.on_run = exit_thread
    running = submit(with_lanes, 1)
    gate.entered.acquire()
    lost = submit(with_lanes, 2)
    lane.go.release()
    with pytest.raises(InferenceDied, match=r"query-[01], which runs gate, has died"):
        with_lanes.died.result(5)
    with pytest.raises(NotReady):
        lost.result(5)
    gate.go.release()
    np.testing.assert_allclose(running.result(5).vector, expected(1), atol=1e-6)


@pytest.mark.parametrize(("priority", "nice"), [(Priority.QUERY, LANE_NICENESS), (Priority.IMPORT, IMPORT_NICENESS)])
def test_lanes_run_at_a_lower_priority(
    gate: Gate, lane: Gate, with_lanes: Batcher, priority: Priority, nice: int
) -> None:
    found: list[int] = []
    lane.on_run = lambda: found.append(niceness())
    submit(with_lanes, 1)
    gate.entered.acquire()
    lane.go.release()
    submit(with_lanes, 2, priority).result(5)
    behind = nice if sys.platform == "linux" else 0
    assert found == [min(os.getpriority(os.PRIO_PROCESS, os.getpid()) + behind, 19)]


def test_query_does_not_wait_for_imports(gate: Gate, lane: Gate, with_lanes: Batcher) -> None:
    imported = [submit(with_lanes, mark, Priority.IMPORT) for mark in range(1, 7)]
    for _ in range(2):
        lane.entered.acquire()
    gate.go.release()
    np.testing.assert_allclose(submit(with_lanes, 8).result(5).vector, expected(8), atol=1e-6)
    assert not any(future.done() for future in imported)
    lane.go.release(100)
    for mark, future in enumerate(imported, 1):
        np.testing.assert_allclose(future.result(5).vector, expected(mark), atol=1e-6)
    assert gate.batches == [[8]]


def test_only_one_import_lane_runs_while_queries_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{Batcher.__module__}.QUIET_S", 1000)
    gate, lane = Gate(), Gate()
    gate.go.release()
    batcher = Batcher([{"gate": gate}], lanes=CpuLanes({"gate": lane}, 2))
    submit(batcher, 1).result(5)
    first = submit(batcher, 2, Priority.IMPORT)
    lane.entered.acquire()
    second = submit(batcher, 3, Priority.IMPORT)
    assert not lane.entered.acquire(timeout=0.1)
    lane.go.release(2)
    for mark, future in ((2, first), (3, second)):
        np.testing.assert_allclose(future.result(5).vector, expected(mark), atol=1e-6)
    assert lane.batches == [[2], [3]]
    batcher.close()


def test_import_lane_pauses_after_a_batch_while_queries_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{Batcher.__module__}.IMPORT_PAUSE_RATIO", 1e6)
    gate, lane = Gate(), Gate()
    for each in (gate, lane):
        each.go.release(10)
    batcher = Batcher([{"gate": gate}], lanes=CpuLanes({"gate": lane}, 1))
    submit(batcher, 1, Priority.IMPORT).result(5)
    submit(batcher, 2, Priority.IMPORT).result(5)  # no query has arrived
    monkeypatch.setattr(f"{Batcher.__module__}.QUIET_S", 1000)
    submit(batcher, 3).result(5)
    submit(batcher, 4, Priority.IMPORT).result(5)
    waiting = submit(batcher, 5, Priority.IMPORT)
    with pytest.raises(TimeoutError):
        waiting.result(0.1)
    batcher.close()  # wakes the lane
    with pytest.raises(NotReady):
        waiting.result(5)


def test_failures_are_counted_over_all_lanes_and_reset_by_any_success(lane: Gate, with_lanes: Batcher) -> None:
    lane.go.release(100)
    for failed in range(3):
        assert with_lanes.problems() == [], failed
        with pytest.raises(EmbeddingFailed):
            submit(with_lanes, POISON, Priority.IMPORT).result(5)
    assert with_lanes.problems() == ["model gate: the last 3 runs failed"]
    submit(with_lanes, 1, Priority.IMPORT).result(5)
    assert with_lanes.problems() == []
