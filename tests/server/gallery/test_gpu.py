"""Search on GPUs, with a stand-in for the GPU: what it is given, what the CPU answers, which GPU is refused."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable
from threading import get_ident
from types import SimpleNamespace

import faiss
import numpy as np
import pytest

from server.gallery import gpu as module
from server.gallery.flat import FaissFlat
from server.gallery.gpu import MAX_K, FaissDevice, Gpu, GpuFlat, GpuUnusable, Segment, choose_index
from server.gallery.index import BruteForce, Mask, Rows, Scores
from server.gallery.types import Vectors, VectorType
from tests.server.gallery.making import unit_vectors

ROWS = 50


class StandIn:
    """A GPU of so many free bytes, which notices other threads than its own."""

    def __init__(self, free: int = 2**40) -> None:
        self.left, self.thread = free, get_ident()
        self.segments, self.copied, self.searched = 0, 0, 0
        self.broken, self.obeys = False, True

    def free(self) -> int:
        assert get_ident() == self.thread
        return self.left

    def load(self, shape: tuple[int, int], parts: Iterable[Vectors]) -> Segment:
        assert get_ident() == self.thread
        vectors = np.concatenate(list(parts))
        assert vectors.shape == shape
        self.left -= 2 * vectors.size
        self.segments += 1
        self.copied += len(vectors)
        return _Segment(self, vectors)


class _Segment:
    def __init__(self, device: StandIn, vectors: Vectors) -> None:
        self._device, self._bytes = device, 2 * vectors.size
        self._index = BruteForce(vectors.shape[1], VectorType.FLOAT16)
        self._index.add(vectors)

    def search(self, queries: Vectors, k: int, allowed: Mask | None) -> tuple[Scores, Rows]:
        assert get_ident() == self._device.thread
        assert k <= min(MAX_K, self._index.size if allowed is None else np.count_nonzero(allowed))
        assert allowed is None or not allowed.all()
        if self._device.broken:
            raise RuntimeError("CUDA error")
        self._device.searched += 1
        return self._index.search(queries, k, allowed if self._device.obeys else None)

    def __del__(self) -> None:
        self._device.left += self._bytes
        self._device.segments -= 1


def make(count: int = 1, free: int = 2**40) -> tuple[list[Gpu], list[StandIn]]:
    devices: list[StandIn] = []

    def open_device() -> StandIn:
        devices.append(StandIn(free))
        return devices[-1]

    return [Gpu(open_device) for _ in range(count)], devices


def check(index: GpuFlat, vectors: Vectors, k: int = 10, allowed: Mask | None = None) -> None:
    """Against brute force, within the stated error."""
    oracle, queries = BruteForce(vectors.shape[1]), unit_vectors(3, vectors.shape[1], seed=8)
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
    """Segments of 2 * ROWS at most, on one GPU or three."""
    monkeypatch.setattr(module, "_LARGEST", 6 * ROWS)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("gpus", [1, 3])
@pytest.mark.parametrize("vector_type", VectorType)
def test_segments_on_gpus_and_the_rest_on_the_cpu_make_one_index(gpus: int, vector_type: VectorType) -> None:
    owners, devices = make(gpus)
    vectors = unit_vectors(7 * ROWS + 20, 16)
    vectors = vectors.astype(vector_type.dtype).astype(np.float32)
    index = GpuFlat(owners, 16, vector_type, rows=ROWS)
    for part in np.array_split(vectors, 9):
        index.add(part)
    assert (index.size, index.dimension, index.on_gpu) == (len(vectors), 16, True)
    assert all(device.segments for device in devices)
    generator = np.random.default_rng(0)
    for mask in (None, generator.random(len(vectors)) < 0.3, np.ones(120, np.bool_), np.zeros(len(vectors), np.bool_)):
        for k in (1, 10, 400):
            check(index, vectors, k, mask)
    np.testing.assert_array_equal(index.vectors(np.arange(len(vectors))), vectors)


def test_segments_stay_few_however_little_is_added_at_a_time() -> None:
    owners, (device,) = make()
    vectors = unit_vectors(100 * ROWS + 7, 16)
    index = GpuFlat(owners, 16, rows=ROWS)
    for part in np.array_split(vectors, 130):
        index.add(part)
    owners[0].tidy()
    owners[0]._thread.submit(gc.collect).result()
    assert device.segments <= 7  # 2^6 < 100 < 2^7
    assert device.copied <= 7 * len(vectors)
    assert device.left == 2**40 - 2 * 100 * ROWS * 16
    check(index, vectors)


def test_a_large_gallery_is_shared_by_several_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LARGEST", 20 * ROWS)
    owners, devices = make(4)
    index = GpuFlat(owners, 16, rows=ROWS)
    index.add(unit_vectors(20 * ROWS, 16))
    assert [device.segments for device in devices] == [1, 1, 1, 1]


def test_a_small_gallery_goes_where_there_is_most_room() -> None:
    owners, devices = make(2)
    indexes = [GpuFlat(owners, 16, rows=ROWS) for _ in range(4)]
    for index in indexes:
        index.add(unit_vectors(ROWS, 16))
    assert [device.segments for device in devices] == [2, 2]


def test_a_search_under_way_keeps_the_segments_that_it_began_with() -> None:
    owners, (device,) = make()
    vectors = unit_vectors(3 * ROWS, 16)
    index = GpuFlat(owners, 16, rows=ROWS)
    index.add(vectors[:ROWS])
    begun = index._loaded
    index.add(vectors[ROWS:])
    owners[0].tidy()
    _, rows = index._by_gpus(begun, vectors[:1], 1, np.ones(ROWS, np.bool_))
    assert rows.tolist() == [[0]]
    assert device.segments == 2
    del begun
    owners[0].tidy()
    owners[0]._thread.submit(gc.collect).result()
    assert device.segments == 1


@pytest.mark.usefixtures("small")
def test_only_segments_with_allowed_rows_are_searched() -> None:
    owners, (device,) = make(1)
    index = GpuFlat(owners, 16, rows=ROWS)
    index.add(unit_vectors(18 * ROWS, 16))
    index.search(unit_vectors(1, 16), 3, np.arange(18 * ROWS) // (6 * ROWS) == 1)
    assert device.searched == 1


def test_the_cpu_answers_what_asks_for_too_many_hits() -> None:
    owners, (device,) = make()
    vectors = unit_vectors(MAX_K + 10, 16)
    index = GpuFlat(owners, 16, rows=1000)
    index.add(vectors)
    check(index, vectors, MAX_K + 1)
    assert device.searched == 0
    check(index, vectors, MAX_K)
    assert device.searched == 1


def test_a_segment_is_copied_in_parts_and_only_if_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PART", ROWS)
    gathered: list[int] = []
    gather = FaissFlat.vectors

    def counting(host: FaissFlat, rows: Rows) -> Vectors:
        gathered.append(len(rows))
        return gather(host, rows)

    monkeypatch.setattr(FaissFlat, "vectors", counting)
    vectors = unit_vectors(3 * ROWS + 20, 16)
    owners, _ = make(free=module._RESERVE + 1000)
    index = GpuFlat(owners, 16, rows=ROWS)
    index.add(vectors)
    assert not index.on_gpu
    assert gathered == []
    owners, _ = make()
    index = GpuFlat(owners, 16, rows=ROWS)
    index.add(vectors)
    assert gathered == [ROWS] * 3
    check(index, vectors)


def test_without_room_for_both_a_segment_stays_beside_the_next() -> None:
    size = 2 * ROWS * 16
    owners, (device,) = make(free=module._RESERVE + 6 * size)
    vectors = unit_vectors(2 * ROWS, 16)
    index = GpuFlat(owners, 16, rows=ROWS)
    index.add(vectors[:ROWS])
    index.add(vectors[ROWS:])
    assert (index.on_gpu, device.segments) == (True, 2)
    check(index, vectors)


def test_the_cpu_answers_where_there_is_no_room(caplog: pytest.LogCaptureFixture) -> None:
    size = 2 * ROWS * 16
    owners, (device,) = make(free=module._RESERVE + 10 * size)
    vectors = unit_vectors(5 * ROWS, 16)
    index = GpuFlat(owners, 16, rows=ROWS)
    index.add(vectors[: 2 * ROWS])
    assert index.on_gpu
    index.add(vectors[2 * ROWS :])
    assert not index.on_gpu
    assert "no room" in caplog.text
    check(index, vectors)
    assert device.searched == 0
    owners[0]._thread.submit(gc.collect).result()
    assert device.left == module._RESERVE + 10 * size  # it has given back what it had


def test_the_cpu_answers_after_an_error(caplog: pytest.LogCaptureFixture) -> None:
    owners, (device,) = make()
    vectors = unit_vectors(5 * ROWS, 16)
    index = GpuFlat(owners, 16, rows=ROWS)
    index.add(vectors)
    device.broken = True
    check(index, vectors)
    assert not index.on_gpu
    assert "CUDA error" in caplog.text


def test_an_index_that_is_gone_leaves_the_gpu() -> None:
    owners, (device,) = make()
    before = device.left
    index = GpuFlat(owners, 16, rows=ROWS)
    index.add(unit_vectors(3 * ROWS, 16))
    assert device.left < before
    with owners[0]._thread._shutdown_lock:  # as when the garbage collector runs in the middle of ``submit``
        del index
        gc.collect()
    owners[0].tidy()
    owners[0]._thread.submit(gc.collect).result()
    assert device.left == before


def choosing(monkeypatch: pytest.MonkeyPatch, spoil: Callable[[StandIn], None], gpus: int = 2) -> None:
    """Have this machine so many GPUs, the last of them spoilt."""

    def open_device(number: int) -> StandIn:
        device = StandIn()
        if number == gpus - 1:
            spoil(device)
        return device

    monkeypatch.setattr(module, "_count", lambda: gpus)
    monkeypatch.setattr(module, "FaissDevice", open_device)


def test_sound_gpus_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    choosing(monkeypatch, lambda device: None)
    assert isinstance(choose_index("auto")(16, VectorType.FLOAT16), GpuFlat)
    assert isinstance(choose_index("cuda")(16, VectorType.FLOAT32), GpuFlat)
    assert choose_index("cpu") is FaissFlat


@pytest.mark.parametrize(
    ("fault", "finding"),
    [
        ({"obeys": False}, "forbidden hits"),
        ({"broken": True}, "failed its test"),
        ({"left": 1000}, "too little free memory"),
    ],
)
def test_a_gpu_that_fails_its_test_is_not_used(
    monkeypatch: pytest.MonkeyPatch, fault: dict[str, object], finding: str
) -> None:
    choosing(monkeypatch, lambda device: vars(device).update(fault))
    assert choose_index("auto") is FaissFlat
    with pytest.raises(GpuUnusable, match=finding):
        choose_index("cuda")


def test_without_a_gpu_auto_takes_the_cpu_and_cuda_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    choosing(monkeypatch, lambda device: None, gpus=0)
    assert choose_index("auto") is FaissFlat
    with pytest.raises(GpuUnusable, match="there is no GPU"):
        choose_index("cuda")


class _Faiss(SimpleNamespace):
    """What of the FAISS for GPUs is used to open one; its names are those of 1.15."""

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


def test_faiss_is_asked_for_cuvs_which_alone_obeys_filters(monkeypatch: pytest.MonkeyPatch) -> None:
    fake, vectors = _Faiss(usable=True), unit_vectors(3 * ROWS, 16)
    monkeypatch.setattr(module, "faiss", fake)
    device = FaissDevice(1)
    segment = device.load((3 * ROWS, 16), np.split(vectors, 3))
    (configuration,) = fake.configurations
    assert vars(configuration) == {"device": 1, "useFloat16": True, "use_cuvs": True}
    _, rows = segment.search(vectors[:2], 1, None)
    assert rows.tolist() == [[0], [1]]


def test_a_gpu_that_cuvs_does_not_run_on_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "faiss", _Faiss(usable=False))
    monkeypatch.setattr(module, "_count", lambda: 1)
    assert choose_index("auto") is FaissFlat
    with pytest.raises(GpuUnusable, match="cuVS"):
        choose_index("cuda")


@pytest.mark.skipif(hasattr(faiss, "StandardGpuResources"), reason="this faiss is built for GPUs")
def test_a_faiss_for_the_cpu_is_said() -> None:
    with pytest.raises(GpuUnusable, match="built for the CPU"):
        choose_index("cuda")
