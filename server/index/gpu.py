"""Exact search on GPUs with FAISS: float16 copies in GPU memory; the CPU searches rows and requests that do not fit."""

from __future__ import annotations

import logging
import math
import sys
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count
from typing import Any, Literal, NamedTuple, Protocol

import faiss
import numpy as np

from server.domain.errors import StartupError
from server.domain.types import StoredVectors, Vectors, VectorType
from server.hardware.cuda import free_memory, start_cuda
from server.index.exact import ExactIndex
from server.index.protocol import BuildIndex, FilterIgnored, Mask, Rows, Scores, check_filter

__all__ = [
    "MAX_K",
    "DeviceSegment",
    "FaissDevice",
    "GpuDevice",
    "GpuIndex",
    "GpuSegment",
    "GpuUnavailable",
    "GpuWorker",
    "choose_index",
]

MAX_K = 2048
"""Largest k of a search on a GPU; the CPU runs searches for more hits."""
_MIN_SEGMENT_ROWS = 2**10
"""Least rows of a segment: the CPU searches fewer rows in a fraction of a millisecond."""
_MAX_SEGMENT_ROWS = 2**20
"""Most rows of a segment, divided among the GPUs: each segment costs a search one call."""
_COPY_ROWS = 2**16
"""Rows copied to a GPU at a time: at 2048 dimensions half a GiB of float32 in host memory."""
_SCRATCH_BYTES = 256 * 2**20
"""Bytes of FAISS's scratch memory on each GPU; its default is up to 1.5 GiB."""
_FREE_BYTES = 2**30
"""Bytes of GPU memory kept free for models, which grow as they run."""

_log = logging.getLogger(__name__)


class GpuUnavailable(StartupError):
    """The settings ask for GPUs that cannot search."""

    def __init__(self, finding: str) -> None:
        super().__init__(f"VIREID_SEARCH_DEVICE=cuda cannot be used: {finding}. Set it to cpu or auto.")


class DeviceSegment(Protocol):
    """Vectors in the memory of a GPU."""

    def search(self, queries: Vectors, k: int, allowed: Mask | None) -> tuple[Scores, Rows]:
        """As of ``VectorIndex``, with k ≤ ``MAX_K`` and at most the number of allowed rows; None: all are."""


class GpuDevice(Protocol):
    """A GPU. Only one thread may use it and its segments."""

    def free(self) -> int:
        """Return the bytes of free memory."""

    def load(self, shape: tuple[int, int], parts: Iterable[Vectors]) -> DeviceSegment:
        """Copy vectors ``[n, D]``, given in parts, into its memory as float16."""


class FaissDevice:
    """A GPU used by FAISS with cuVS; without cuVS, FAISS accepts filters and ignores them.

    Raises:
        RuntimeError: FAISS was built without cuVS, or the GPU is too old for it (compute capability below 7).
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self._configuration: Any = faiss.GpuIndexFlatConfig()
        self._configuration.device, self._configuration.useFloat16 = number, True
        self._configuration.use_cuvs = True  # not the default since 1.15
        if not faiss.should_use_cuvs(self._configuration):  # type: ignore[attr-defined]  # the stubs lack it
            raise RuntimeError(f"FAISS cannot use cuVS on GPU {number}")
        self._resources: Any = faiss.StandardGpuResources()
        self._resources.setTempMemory(_SCRATCH_BYTES)
        self._resources.setPinnedMemory(0)  # cuVS does not use its 256 MiB of host memory

    def free(self) -> int:
        return free_memory(self._number)

    def load(self, shape: tuple[int, int], parts: Iterable[Vectors]) -> DeviceSegment:
        index: Any = faiss.GpuIndexFlatIP(self._resources, shape[1], self._configuration)
        for part in parts:
            index.add(part)
        return _FaissSegment(index)


class _FaissSegment:
    def __init__(self, index: Any) -> None:
        self._index = index

    def search(self, queries: Vectors, k: int, allowed: Mask | None) -> tuple[Scores, Rows]:
        parameters = None
        if allowed is not None:
            bits = np.packbits(allowed, bitorder="little")
            selector = faiss.IDSelectorBitmap(len(bits), faiss.swig_ptr(bits))
            parameters = faiss.SearchParameters(sel=selector)  # type: ignore[call-arg]  # the stubs lack it
        found: tuple[Scores, Rows] = self._index.search(queries, k, params=parameters)
        return found


class GpuSegment:
    """A segment on a GPU, freed when this object is collected."""

    def __init__(self, gpu: GpuWorker, number: int) -> None:
        self.gpu, self.number = gpu, number
        weakref.finalize(self, gpu.drop, number).atexit = False

    def search(self, queries: Vectors, k: int, allowed: Mask | None) -> Callable[[], tuple[Scores, Rows]]:
        """Start a search; the returned function waits for its result."""
        return self.gpu.search(self.number, queries, k, allowed)


class GpuWorker:
    """A GPU and the one thread that uses it."""

    def __init__(self, open_device: Callable[[], GpuDevice]) -> None:
        self._thread = ThreadPoolExecutor(1, "gpu")
        self._device = self._thread.submit(open_device).result()
        self._segments: dict[int, DeviceSegment] = {}
        self._dropped: deque[int] = deque()
        self._numbers = count()

    def free(self) -> int:
        """Return the bytes of free memory."""
        return self._thread.submit(self._device.free).result()

    def load(self, shape: tuple[int, int], parts: Iterable[Vectors]) -> GpuSegment | None:
        """Load vectors ``[n, D]``; return None, without reading a part, if there is no room."""
        number = self._thread.submit(self._load, shape, parts).result()
        return None if number is None else GpuSegment(self, number)

    def search(self, number: int, queries: Vectors, k: int, allowed: Mask | None) -> Callable[[], tuple[Scores, Rows]]:
        """Start a search of a segment; the returned function waits for its result."""
        return self._thread.submit(self._search, number, queries, k, allowed).result

    def drop(self, number: int) -> None:
        """Free the memory of a segment before the GPU's next task.

        Takes no lock, because the garbage collector may call this anywhere, also within ``submit``.
        """
        self._dropped.append(number)

    def tidy(self) -> None:
        """Free dropped segments soon."""
        self._thread.submit(self._free_dropped)

    def _search(self, number: int, queries: Vectors, k: int, allowed: Mask | None) -> tuple[Scores, Rows]:
        self._free_dropped()
        return self._segments[number].search(queries, k, allowed)

    def _free_dropped(self) -> None:
        while self._dropped:
            self._segments.pop(self._dropped.popleft(), None)

    def _load(self, shape: tuple[int, int], parts: Iterable[Vectors]) -> int | None:
        self._free_dropped()
        if self._device.free() < _bytes_needed(*shape) + _FREE_BYTES:
            return None
        number = next(self._numbers)
        self._segments[number] = self._device.load(shape, parts)
        return number


class _LoadedRange(NamedTuple):
    """The rows from ``start`` to ``end`` on a GPU."""

    start: int
    end: int
    held: GpuSegment


class GpuIndex:
    """Exact search on GPUs. CPU memory holds all vectors too, to score hits again.

    As soon as ``rows`` rows wait, they are loaded onto the GPU with the fewest rows. A new segment absorbs preceding
    segments that are not twice as large, so that there are few, however small the additions. The CPU searches the last
    rows, fewer than ``rows``, and runs searches for more than ``MAX_K`` hits. If there is no room, or after an error
    that FAISS raises, the CPU runs every search. On other CUDA errors FAISS aborts the process.
    """

    def __init__(
        self,
        gpus: Sequence[GpuWorker],
        dimension: int,
        vector_type: VectorType = VectorType.FLOAT32,
        *,
        rows: int = _MIN_SEGMENT_ROWS,
    ) -> None:
        self._gpus, self._rows = gpus, rows
        self._largest = _MAX_SEGMENT_ROWS // len(gpus)
        self._host = ExactIndex(dimension, vector_type, codes=False)
        self._loaded: tuple[_LoadedRange, ...] = ()
        self._cpu_only = False

    @property
    def dimension(self) -> int:
        return self._host.dimension

    @property
    def size(self) -> int:
        return self._host.size

    @property
    def on_gpu(self) -> bool:
        """Whether a GPU holds some of the rows."""
        return bool(self._loaded)

    @property
    def error(self) -> float:
        rounding = 2.0**-11 + math.sqrt(self.dimension) * 2.0**-25  # of the stored vector and the query to float16
        return self._host.error + 1.01 * (2 * rounding + (self.dimension + 2) * 2.0**-24)

    def add(self, vectors: StoredVectors) -> None:
        self._host.add(vectors)
        if self._cpu_only:
            return
        try:
            while (
                count := min(self.size - self._end, self._largest) // self._rows * self._rows
            ) and not self._cpu_only:
                self._load(count)
        except Exception:
            self._use_cpu("the GPU failed")
        if self._cpu_only:
            self._tidy()

    def search(self, queries: Vectors, k: int, allowed: Mask | None = None) -> tuple[Scores, Rows]:
        loaded = self._loaded if k <= MAX_K else ()
        if not loaded:
            return self._host.search(queries, k, allowed)
        try:
            return self._search_gpus(loaded, queries, k, allowed)
        except Exception:
            self._use_cpu("the GPU failed")
        del loaded
        self._tidy()
        return self._host.search(queries, k, allowed)

    def _search_gpus(
        self, loaded: Sequence[_LoadedRange], queries: Vectors, k: int, allowed: Mask | None
    ) -> tuple[Scores, Rows]:
        queries = np.ascontiguousarray(queries, np.float32)
        waiting = []
        for one in loaded:
            size = one.end - one.start
            mask = None if allowed is None else _mask_part(allowed, one.start, one.end)
            count = size if mask is None else int(np.count_nonzero(mask))
            if count:  # cuVS invents rows if k exceeds the number of allowed ones
                waiting.append((one.start, one.held.search(queries, min(k, count), mask if count < size else None)))
        rest = np.ones(self.size, np.bool_) if allowed is None else allowed.copy()
        rest[: loaded[-1].end] = False
        scores, rows = self._host.search(queries, k, rest)
        for start, wait in waiting:
            near, places = wait()
            scores = np.concatenate([scores, near], axis=1, dtype=np.float32)
            rows = np.concatenate([rows, places + start], axis=1)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(scores, order, axis=1), np.take_along_axis(rows, order, axis=1)

    def vectors(self, rows: Rows) -> Vectors:
        return self._host.vectors(rows)

    @property
    def _end(self) -> int:
        return self._loaded[-1].end if self._loaded else 0

    def _load(self, count: int) -> None:
        """Load the next rows, merged with small segments before them if there is room for both."""
        for kept in dict.fromkeys((self._unmerged(count), len(self._loaded))):
            loaded = self._loaded[:kept]
            start, end = loaded[-1].end if loaded else 0, self._end + count
            shape = end - start, self.dimension
            if (held := self._least_loaded(loaded).load(shape, self._parts(start, end))) is not None:
                self._loaded = (*loaded, _LoadedRange(start, end, held))
                return
        self._use_cpu("there is no room on the GPU")

    def _parts(self, start: int, end: int) -> Iterator[Vectors]:
        for at in range(start, end, _COPY_ROWS):
            yield self._host.vectors(np.arange(at, min(at + _COPY_ROWS, end)))

    def _least_loaded(self, loaded: Sequence[_LoadedRange]) -> GpuWorker:
        """Return the GPU with the fewest rows of this index, and of several the one with most free memory."""
        rows = {gpu: sum(one.end - one.start for one in loaded if one.held.gpu is gpu) for gpu in self._gpus}
        return min((gpu for gpu in self._gpus if rows[gpu] == min(rows.values())), key=lambda gpu: -gpu.free())

    def _unmerged(self, count: int) -> int:
        """Return how many segments remain unmerged when ``count`` more rows are loaded."""
        kept = len(self._loaded)
        while kept:
            size = self._loaded[kept - 1].end - self._loaded[kept - 1].start
            if size >= 2 * count or size + count > self._largest:
                break
            count += size
            kept -= 1
        return kept

    def _use_cpu(self, finding: str) -> None:
        self._loaded, self._cpu_only = (), True
        failed = sys.exc_info()[0] is not None
        _log.warning("%s, %d rows are searched on the CPU", finding, self.size, exc_info=failed)

    def _tidy(self) -> None:
        for gpu in self._gpus:
            gpu.tidy()


def choose_index(setting: Literal["auto", "cpu", "cuda"], *, codes: bool = True) -> BuildIndex:
    """Return the constructor of gallery indexes. Every GPU is tested first: one that ignores filters is not used.

    ``codes`` is whether a search on the CPU may keep one-byte codes of the vectors.

    Raises:
        GpuUnavailable: the setting is ``cuda``, and there is no GPU or one cannot be used.
    """
    on_cpu = ExactIndex if codes else partial(ExactIndex, codes=False)
    if setting == "cpu":
        return on_cpu
    try:
        return _on_gpus([GpuWorker(partial(FaissDevice, number)) for number in range(_count())])
    except (GpuUnavailable, FilterIgnored, RuntimeError) as error:
        if setting == "cuda":
            raise GpuUnavailable(str(error)) from error
        _log.info("galleries are searched on the CPU: %s", error)
        return on_cpu


def _count() -> int:
    if not hasattr(faiss, "StandardGpuResources"):
        raise RuntimeError("this build of faiss has no GPU support; install vireid[gpu]")
    start_cuda()  # FAISS aborts the process if CUDA does not start
    return int(faiss.get_num_gpus())


def _on_gpus(gpus: Sequence[GpuWorker]) -> BuildIndex:
    if not gpus:
        raise RuntimeError("there is no GPU")
    for gpu in gpus:
        _check(gpu)
    return partial(GpuIndex, gpus)


def _check(gpu: GpuWorker) -> None:
    made: list[GpuIndex] = []

    def build(dimension: int, vector_type: VectorType) -> GpuIndex:
        made.append(GpuIndex([gpu], dimension, vector_type, rows=64))  # so few that the test reaches the GPU
        return made[-1]

    check_filter(build)
    if not all(index.on_gpu for index in made):
        raise RuntimeError("a GPU failed its test, or has too little free memory")


def _bytes_needed(rows: int, dimension: int) -> int:
    """Return the bytes of GPU memory used while vectors are loaded.

    They are held twice as float16, because FAISS copies them to a larger array when a part is added; the part is held
    as float32 and float16.
    """
    return dimension * (2 * 2 * rows + (4 + 2) * min(rows, _COPY_ROWS))


def _mask_part(allowed: Mask, start: int, end: int) -> Mask:
    """Return the rows from ``start`` to ``end`` of a mask, which may be shorter."""
    part = allowed[start:end]
    return np.pad(part, (0, end - start - len(part)))
