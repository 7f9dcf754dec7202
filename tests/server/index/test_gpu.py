"""GPU search with a fake GPU: loading, fallback to the CPU, refusal of unusable GPUs."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable
from threading import get_ident
from types import SimpleNamespace

import faiss
import numpy as np
import pytest

from server.domain.types import Vectors, VectorType
from server.index import gpu as module
from server.index.exact import ExactIndex
from server.index.gpu import MAX_K, DeviceSegment, FaissDevice, GpuIndex, GpuUnavailable, GpuWorker, choose_index
from server.index.protocol import BruteForceIndex, Mask, Rows, Scores
from tests.server.gallery.builders import unit_vectors

ROWS = 50


class FakeGpu:
    """A GPU with ``free`` bytes that asserts that only its own thread uses it."""

    def __init__(self, free: int = 2**40) -> None:
        self.free_bytes, self.thread = free, get_ident()
        self.segments, self.copied, self.searched = 0, 0, 0
        self.broken, self.applies_filter = False, True

    def free(self) -> int:
        assert get_ident() == self.thread
        return self.free_bytes

    def load(self, shape: tuple[int, int], parts: Iterable[Vectors]) -> DeviceSegment:
        assert get_ident() == self.thread
        vectors = np.concatenate(list(parts))
        assert vectors.shape == shape
        self.free_bytes -= 2 * vectors.size
        self.segments += 1
        self.copied += len(vectors)
        return _Segment(self, vectors)


class _Segment:
    def __init__(self, device: FakeGpu, vectors: Vectors) -> None:
        self._device, self._bytes = device, 2 * vectors.size
        self._index = BruteForceIndex(vectors.shape[1], VectorType.FLOAT16)
        self._index.add(vectors)

    def search(self, queries: Vectors, k: int, allowed: Mask | None) -> tuple[Scores, Rows]:
        assert get_ident() == self._device.thread
        assert k <= min(MAX_K, self._index.size if allowed is None else np.count_nonzero(allowed))
        assert allowed is None or not allowed.all()
        if self._device.broken:
            raise RuntimeError("CUDA error")
        self._device.searched += 1
        return self._index.search(queries, k, allowed if self._device.applies_filter else None)

    def __del__(self) -> None:
        self._device.free_bytes += self._bytes
        self._device.segments -= 1


def create_workers(count: int = 1, free: int = 2**40) -> tuple[list[GpuWorker], list[FakeGpu]]:
    devices: list[FakeGpu] = []

    def open_device() -> FakeGpu:
        devices.append(FakeGpu(free))
        return devices[-1]

    return [GpuWorker(open_device) for _ in range(count)], devices


def check_search(index: GpuIndex, vectors: Vectors, k: int = 10, allowed: Mask | None = None) -> None:
    """Assert that a search equals brute force within the stated error."""
    oracle, queries = BruteForceIndex(vectors.shape[1]), unit_vectors(3, vectors.shape[1], seed=8)
    oracle.add(vectors)
    expected, places = oracle.search(queries, k, allowed)
    scores, rows = index.search(queries, k, allowed)
    assert (scores.dtype, rows.dtype, scores.shape) == (np.float32, np.int64, (3, k))
    np.testing.assert_allclose(scores, expected, rtol=0, atol=index.error + oracle.error)
    np.testing.assert_array_equal(rows < 0, places < 0)
    exact = queries.astype(np.float64) @ vectors.T.astype(np.float64)
    found = rows >= 0
    assert (np.abs(np.take_along_axis(exact, rows, axis=1) - scores)[found] <= index.error).all()
    assert allowed is None or np.pad(allowed, (0, len(vectors) - len(allowed)))[rows[found]].all()


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limit the size of segments."""
    monkeypatch.setattr(module, "_MAX_SEGMENT_ROWS", 6 * ROWS)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("gpus", [1, 3])
@pytest.mark.parametrize("vector_type", VectorType)
def test_gpu_segments_and_cpu_rows_form_one_index(gpus: int, vector_type: VectorType) -> None:
    workers, devices = create_workers(gpus)
    vectors = unit_vectors(7 * ROWS + 20, 16)
    vectors = vectors.astype(vector_type.dtype).astype(np.float32)
    index = GpuIndex(workers, 16, vector_type, rows=ROWS)
    for part in np.array_split(vectors, 9):
        index.add(part)
    assert (index.size, index.dimension, index.on_gpu) == (len(vectors), 16, True)
    assert all(device.segments for device in devices)
    generator = np.random.default_rng(0)
    for mask in (None, generator.random(len(vectors)) < 0.3, np.ones(120, np.bool_), np.zeros(len(vectors), np.bool_)):
        for k in (1, 10, 400):
            check_search(index, vectors, k, mask)
    np.testing.assert_array_equal(index.vectors(np.arange(len(vectors))), vectors)


def test_small_additions_do_not_create_many_segments() -> None:
    workers, (device,) = create_workers()
    vectors = unit_vectors(100 * ROWS + 7, 16)
    index = GpuIndex(workers, 16, rows=ROWS)
    for part in np.array_split(vectors, 130):
        index.add(part)
    workers[0].tidy()
    workers[0]._thread.submit(gc.collect).result()
    assert device.segments <= 7  # 2^6 < 100 < 2^7
    assert device.copied <= 7 * len(vectors)
    assert device.free_bytes == 2**40 - 2 * 100 * ROWS * 16
    check_search(index, vectors)


def test_a_large_gallery_is_distributed_over_several_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_SEGMENT_ROWS", 20 * ROWS)
    workers, devices = create_workers(4)
    index = GpuIndex(workers, 16, rows=ROWS)
    index.add(unit_vectors(20 * ROWS, 16))
    assert [device.segments for device in devices] == [1, 1, 1, 1]


def test_a_small_gallery_is_loaded_onto_the_gpu_with_most_free_memory() -> None:
    workers, devices = create_workers(2)
    indexes = [GpuIndex(workers, 16, rows=ROWS) for _ in range(4)]
    for index in indexes:
        index.add(unit_vectors(ROWS, 16))
    assert [device.segments for device in devices] == [2, 2]


def test_a_running_search_keeps_its_segments() -> None:
    workers, (device,) = create_workers()
    vectors = unit_vectors(3 * ROWS, 16)
    index = GpuIndex(workers, 16, rows=ROWS)
    index.add(vectors[:ROWS])
    begun = index._loaded
    index.add(vectors[ROWS:])
    workers[0].tidy()
    _, rows = index._search_gpus(begun, vectors[:1], 1, np.ones(ROWS, np.bool_))
    assert rows.tolist() == [[0]]
    assert device.segments == 2
    del begun
    workers[0].tidy()
    workers[0]._thread.submit(gc.collect).result()
    assert device.segments == 1


@pytest.mark.usefixtures("small")
def test_only_segments_with_allowed_rows_are_searched() -> None:
    workers, (device,) = create_workers(1)
    index = GpuIndex(workers, 16, rows=ROWS)
    index.add(unit_vectors(18 * ROWS, 16))
    index.search(unit_vectors(1, 16), 3, np.arange(18 * ROWS) // (6 * ROWS) == 1)
    assert device.searched == 1


def test_the_cpu_runs_searches_for_too_many_hits() -> None:
    workers, (device,) = create_workers()
    vectors = unit_vectors(MAX_K + 10, 16)
    index = GpuIndex(workers, 16, rows=1000)
    index.add(vectors)
    check_search(index, vectors, MAX_K + 1)
    assert device.searched == 0
    check_search(index, vectors, MAX_K)
    assert device.searched == 1


def test_a_segment_is_copied_in_parts_and_only_if_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_COPY_ROWS", ROWS)
    gathered: list[int] = []
    gather = ExactIndex.vectors

    def counting(host: ExactIndex, rows: Rows) -> Vectors:
        gathered.append(len(rows))
        return gather(host, rows)

    monkeypatch.setattr(ExactIndex, "vectors", counting)
    vectors = unit_vectors(3 * ROWS + 20, 16)
    workers, _ = create_workers(free=module._FREE_BYTES + 1000)
    index = GpuIndex(workers, 16, rows=ROWS)
    index.add(vectors)
    assert not index.on_gpu
    assert gathered == []
    workers, _ = create_workers()
    index = GpuIndex(workers, 16, rows=ROWS)
    index.add(vectors)
    assert gathered == [ROWS] * 3
    check_search(index, vectors)


def test_segments_are_not_merged_without_room() -> None:
    size = 2 * ROWS * 16
    workers, (device,) = create_workers(free=module._FREE_BYTES + 6 * size)
    vectors = unit_vectors(2 * ROWS, 16)
    index = GpuIndex(workers, 16, rows=ROWS)
    index.add(vectors[:ROWS])
    index.add(vectors[ROWS:])
    assert (index.on_gpu, device.segments) == (True, 2)
    check_search(index, vectors)


def test_the_cpu_searches_if_the_gpu_has_no_room(caplog: pytest.LogCaptureFixture) -> None:
    size = 2 * ROWS * 16
    workers, (device,) = create_workers(free=module._FREE_BYTES + 10 * size)
    vectors = unit_vectors(5 * ROWS, 16)
    index = GpuIndex(workers, 16, rows=ROWS)
    index.add(vectors[: 2 * ROWS])
    assert index.on_gpu
    index.add(vectors[2 * ROWS :])
    assert not index.on_gpu
    assert "no room" in caplog.text
    check_search(index, vectors)
    assert device.searched == 0
    workers[0]._thread.submit(gc.collect).result()
    assert device.free_bytes == module._FREE_BYTES + 10 * size  # it has given back what it had


def test_the_cpu_searches_after_a_gpu_error(caplog: pytest.LogCaptureFixture) -> None:
    workers, (device,) = create_workers()
    vectors = unit_vectors(5 * ROWS, 16)
    index = GpuIndex(workers, 16, rows=ROWS)
    index.add(vectors)
    device.broken = True
    check_search(index, vectors)
    assert not index.on_gpu
    assert "CUDA error" in caplog.text


def test_a_collected_index_frees_its_gpu_memory() -> None:
    workers, (device,) = create_workers()
    before = device.free_bytes
    index = GpuIndex(workers, 16, rows=ROWS)
    index.add(unit_vectors(3 * ROWS, 16))
    assert device.free_bytes < before
    with workers[0]._thread._shutdown_lock:  # as when the garbage collector runs in the middle of ``submit``
        del index
        gc.collect()
    workers[0].tidy()
    workers[0]._thread.submit(gc.collect).result()
    assert device.free_bytes == before


def patch_gpus(monkeypatch: pytest.MonkeyPatch, damage: Callable[[FakeGpu], None], gpus: int = 2) -> None:
    """Simulate a machine with ``gpus`` GPUs; ``damage`` is applied to the last one."""

    def open_device(number: int) -> FakeGpu:
        device = FakeGpu()
        if number == gpus - 1:
            damage(device)
        return device

    monkeypatch.setattr(module, "_count", lambda: gpus)
    monkeypatch.setattr(module, "FaissDevice", open_device)


def test_gpus_that_pass_the_check_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    patch_gpus(monkeypatch, lambda device: None)
    assert isinstance(choose_index("auto")(16, VectorType.FLOAT16), GpuIndex)
    assert isinstance(choose_index("cuda")(16, VectorType.FLOAT32), GpuIndex)
    assert choose_index("cpu") is ExactIndex


@pytest.mark.parametrize(
    ("fault", "finding"),
    [
        ({"applies_filter": False}, "forbidden hits"),
        ({"broken": True}, "failed its test"),
        ({"free_bytes": 1000}, "too little free memory"),
    ],
)
def test_a_gpu_that_fails_its_test_is_not_used(
    monkeypatch: pytest.MonkeyPatch, fault: dict[str, object], finding: str
) -> None:
    patch_gpus(monkeypatch, lambda device: vars(device).update(fault))
    assert choose_index("auto") is ExactIndex
    with pytest.raises(GpuUnavailable, match=finding):
        choose_index("cuda")


def test_without_a_gpu_auto_uses_the_cpu_and_cuda_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    patch_gpus(monkeypatch, lambda device: None, gpus=0)
    assert choose_index("auto") is ExactIndex
    with pytest.raises(GpuUnavailable, match="there is no GPU"):
        choose_index("cuda")


class _Faiss(SimpleNamespace):
    """The part of the GPU build of FAISS (1.15) that opens a GPU."""

    def __init__(self, usable: bool) -> None:
        self.configurations: list[SimpleNamespace] = []
        super().__init__(
            GpuIndexFlatConfig=lambda: SimpleNamespace(use_cuvs=False),
            should_use_cuvs=lambda configuration: usable and configuration.use_cuvs,
            StandardGpuResources=lambda: SimpleNamespace(setTempMemory=int, setPinnedMemory=int),
            GpuIndexFlatIP=self._index,
        )

    def _index(self, resources: object, dimension: int, configuration: SimpleNamespace) -> faiss.IndexFlatIP:
        self.configurations.append(configuration)
        return faiss.IndexFlatIP(dimension)


def test_faiss_uses_cuvs_which_applies_filters(monkeypatch: pytest.MonkeyPatch) -> None:
    fake, vectors = _Faiss(usable=True), unit_vectors(3 * ROWS, 16)
    monkeypatch.setattr(module, "faiss", fake)
    device = FaissDevice(1)
    segment = device.load((3 * ROWS, 16), np.split(vectors, 3))
    (configuration,) = fake.configurations
    assert vars(configuration) == {"device": 1, "useFloat16": True, "use_cuvs": True}
    _, rows = segment.search(vectors[:2], 1, None)
    assert rows.tolist() == [[0], [1]]


def test_a_gpu_without_cuvs_support_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "faiss", _Faiss(usable=False))
    monkeypatch.setattr(module, "_count", lambda: 1)
    assert choose_index("auto") is ExactIndex
    with pytest.raises(GpuUnavailable, match="cuVS"):
        choose_index("cuda")


@pytest.mark.skipif(hasattr(faiss, "StandardGpuResources"), reason="this faiss is built for GPUs")
def test_a_cpu_build_of_faiss_is_reported() -> None:
    with pytest.raises(GpuUnavailable, match="no GPU support"):
        choose_index("cuda")
