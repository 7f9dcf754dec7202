"""Exact search on GPUs with FAISS: float16 copies in GPU memory of what the CPU holds, which answers the rest."""

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

from server.cuda import free_memory, start_cuda
from server.gallery.flat import FaissFlat
from server.gallery.index import BuildIndex, FilterIgnored, Mask, Rows, Scores, check_filter
from server.gallery.refused import StartError
from server.gallery.types import StoredVectors, Vectors, VectorType

__all__ = ["MAX_K", "Device", "FaissDevice", "Gpu", "GpuFlat", "GpuUnusable", "Held", "Segment", "choose_index"]

MAX_K = 2048
"""Most hits of one search on a GPU; the CPU answers what asks for more."""
_ROWS = 2**10
"""Rows that are worth a load: fewer stay with the CPU, which reads them in a fraction of a millisecond."""
_LARGEST = 2**20
"""Rows of a segment at most, and among several GPUs the share of each: a search costs each segment a call."""
_PART = 2**16
"""Rows that are copied to a GPU at a time: at 2048 dimensions half a GiB of float32 in the host's memory."""
_TEMPORARY = 256 * 2**20
"""Bytes that FAISS takes on each GPU to work with; its own choice would be up to 1.5 GiB."""
_RESERVE = 2**30
"""Bytes of GPU memory that are left to others: models grow as they run."""

_log = logging.getLogger(__name__)


class GpuUnusable(StartError):
    """The settings ask for GPUs that cannot search."""

    def __init__(self, finding: str) -> None:
        super().__init__(f"VIREID_SEARCH_DEVICE=cuda cannot be: {finding}. Set it to cpu, or to auto.")


class Segment(Protocol):
    """Vectors in the memory of a GPU."""

    def search(self, queries: Vectors, k: int, allowed: Mask | None) -> tuple[Scores, Rows]:
        """As of ``VectorIndex``, with k ≤ ``MAX_K`` and at most the number of allowed rows; None: all are."""


class Device(Protocol):
    """A GPU. One thread alone may use it and its segments."""

    def free(self) -> int:
        """Bytes of memory that nobody has taken."""

    def load(self, shape: tuple[int, int], parts: Iterable[Vectors]) -> Segment:
        """Copy ``[n, D]``, given in parts, into its memory, as float16."""


class FaissDevice:
    """A GPU by FAISS with cuVS: without, FAISS takes filters and ignores them.

    Raises:
        RuntimeError: FAISS is built without cuVS, or the GPU is too old for it (compute capability below 7).
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self._configuration: Any = faiss.GpuIndexFlatConfig()
        self._configuration.device, self._configuration.useFloat16 = number, True
        self._configuration.use_cuvs = True  # not by itself, since 1.15
        if not faiss.should_use_cuvs(self._configuration):  # type: ignore[attr-defined]  # the stubs lack it
            raise RuntimeError(f"FAISS cannot use cuVS on GPU {number}")
        self._resources: Any = faiss.StandardGpuResources()
        self._resources.setTempMemory(_TEMPORARY)
        self._resources.setPinnedMemory(0)  # 256 MiB of the host's memory, for a copying that cuVS has no use for

    def free(self) -> int:
        return free_memory(self._number)

    def load(self, shape: tuple[int, int], parts: Iterable[Vectors]) -> Segment:
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


class Held:
    """A segment on a GPU, which is dropped when nobody holds this any more."""

    def __init__(self, gpu: Gpu, number: int) -> None:
        self.gpu, self.number = gpu, number
        weakref.finalize(self, gpu.drop, number).atexit = False

    def search(self, queries: Vectors, k: int, allowed: Mask | None) -> Callable[[], tuple[Scores, Rows]]:
        """Begin to search it; what is returned waits for the end."""
        return self.gpu.search(self.number, queries, k, allowed)


class Gpu:
    """A GPU and the one thread that uses it."""

    def __init__(self, open_device: Callable[[], Device]) -> None:
        self._thread = ThreadPoolExecutor(1, "gpu")
        self._device = self._thread.submit(open_device).result()
        self._segments: dict[int, Segment] = {}
        self._dropped: deque[int] = deque()
        self._numbers = count()

    def free(self) -> int:
        """Bytes of memory that nobody has taken."""
        return self._thread.submit(self._device.free).result()

    def load(self, shape: tuple[int, int], parts: Iterable[Vectors]) -> Held | None:
        """Take vectors ``[n, D]``, if there is room; without, no part is asked for."""
        number = self._thread.submit(self._load, shape, parts).result()
        return None if number is None else Held(self, number)

    def search(self, number: int, queries: Vectors, k: int, allowed: Mask | None) -> Callable[[], tuple[Scores, Rows]]:
        """Begin to search a segment; what is returned waits for the end."""
        return self._thread.submit(self._search, number, queries, k, allowed).result

    def drop(self, number: int) -> None:
        """Have the memory of a segment freed before the GPU's next task.

        Takes no lock: the garbage collector may call this anywhere, in the middle of ``submit`` too.
        """
        self._dropped.append(number)

    def tidy(self) -> None:
        """Free what was dropped, soon."""
        self._thread.submit(self._free_dropped)

    def _search(self, number: int, queries: Vectors, k: int, allowed: Mask | None) -> tuple[Scores, Rows]:
        self._free_dropped()
        return self._segments[number].search(queries, k, allowed)

    def _free_dropped(self) -> None:
        while self._dropped:
            self._segments.pop(self._dropped.popleft(), None)

    def _load(self, shape: tuple[int, int], parts: Iterable[Vectors]) -> int | None:
        self._free_dropped()
        if self._device.free() < _room(*shape) + _RESERVE:
            return None
        number = next(self._numbers)
        self._segments[number] = self._device.load(shape, parts)
        return number


class _Loaded(NamedTuple):
    """Rows ``start`` to ``end``, on a GPU."""

    start: int
    end: int
    held: Held


class GpuFlat:
    """Flat search by GPUs. Memory of the CPU holds all vectors too: hits are scored again with them.

    Rows are loaded as soon as ``rows`` of them wait, onto the GPU that has the fewest. A segment takes in what stands
    before it and is not twice as large, so that they stay few however little is added at a time. Less than ``rows`` of
    the last ones stay with the CPU, and so do searches for more than ``MAX_K`` hits. Where there is no room, or after
    an error that FAISS raises, the CPU answers every search. Other errors of CUDA end the process: FAISS aborts.
    """

    def __init__(
        self,
        gpus: Sequence[Gpu],
        dimension: int,
        vector_type: VectorType = VectorType.FLOAT32,
        *,
        rows: int = _ROWS,
    ) -> None:
        self._gpus, self._rows = gpus, rows
        self._largest = _LARGEST // len(gpus)
        self._host = FaissFlat(dimension, vector_type)
        self._loaded: tuple[_Loaded, ...] = ()
        self._given_up = False

    @property
    def dimension(self) -> int:
        return self._host.dimension

    @property
    def size(self) -> int:
        return self._host.size

    @property
    def on_gpu(self) -> bool:
        """Whether a GPU holds a part of it."""
        return bool(self._loaded)

    @property
    def error(self) -> float:
        rounding = 2.0**-11 + math.sqrt(self.dimension) * 2.0**-25  # to float16, of the stored vector and the query
        return self._host.error + 1.01 * (2 * rounding + (self.dimension + 2) * 2.0**-24)

    def add(self, vectors: StoredVectors) -> None:
        self._host.add(vectors)
        if self._given_up:
            return
        try:
            while (
                count := min(self.size - self._end, self._largest) // self._rows * self._rows
            ) and not self._given_up:
                self._load(count)
        except Exception:
            self._give_up("the GPU failed")
        if self._given_up:
            self._tidy()

    def search(self, queries: Vectors, k: int, allowed: Mask | None = None) -> tuple[Scores, Rows]:
        loaded = self._loaded if k <= MAX_K else ()
        if not loaded:
            return self._host.search(queries, k, allowed)
        try:
            return self._by_gpus(loaded, queries, k, allowed)
        except Exception:
            self._give_up("the GPU failed")
        del loaded
        self._tidy()
        return self._host.search(queries, k, allowed)

    def _by_gpus(
        self, loaded: Sequence[_Loaded], queries: Vectors, k: int, allowed: Mask | None
    ) -> tuple[Scores, Rows]:
        queries = np.ascontiguousarray(queries, np.float32)
        waiting = []
        for one in loaded:
            size = one.end - one.start
            mask = None if allowed is None else _part(allowed, one.start, one.end)
            count = size if mask is None else int(np.count_nonzero(mask))
            if count:  # cuVS makes up rows where it is asked for more than are allowed
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
        """Load the next rows, together with small segments before them if there is room for both."""
        for kept in dict.fromkeys((self._beside(count), len(self._loaded))):
            loaded = self._loaded[:kept]
            start, end = loaded[-1].end if loaded else 0, self._end + count
            shape = end - start, self.dimension
            if (held := self._emptiest(loaded).load(shape, self._parts(start, end))) is not None:
                self._loaded = (*loaded, _Loaded(start, end, held))
                return
        self._give_up("there is no room on the GPU")

    def _parts(self, start: int, end: int) -> Iterator[Vectors]:
        for at in range(start, end, _PART):
            yield self._host.vectors(np.arange(at, min(at + _PART, end)))

    def _emptiest(self, loaded: Sequence[_Loaded]) -> Gpu:
        """The GPU with the fewest rows of this index, and among those with most room."""
        rows = {gpu: sum(one.end - one.start for one in loaded if one.held.gpu is gpu) for gpu in self._gpus}
        return min((gpu for gpu in self._gpus if rows[gpu] == min(rows.values())), key=lambda gpu: -gpu.free())

    def _beside(self, count: int) -> int:
        """How many segments stay as they are when ``count`` rows more are loaded."""
        kept = len(self._loaded)
        while kept:
            size = self._loaded[kept - 1].end - self._loaded[kept - 1].start
            if size >= 2 * count or size + count > self._largest:
                break
            count += size
            kept -= 1
        return kept

    def _give_up(self, finding: str) -> None:
        self._loaded, self._given_up = (), True
        failed = sys.exc_info()[0] is not None
        _log.warning("%s, %d rows are searched on the CPU", finding, self.size, exc_info=failed)

    def _tidy(self) -> None:
        for gpu in self._gpus:
            gpu.tidy()


def choose_index(setting: Literal["auto", "cpu", "cuda"]) -> BuildIndex:
    """What makes the indexes of galleries. Every GPU is tested first: one that ignores filters is not used.

    Raises:
        GpuUnusable: ``cuda`` is asked for, and a GPU cannot be used, or there is none.
    """
    if setting == "cpu":
        return FaissFlat
    try:
        return _on_gpus([Gpu(partial(FaissDevice, number)) for number in range(_count())])
    except (GpuUnusable, FilterIgnored, RuntimeError) as error:
        if setting == "cuda":
            raise GpuUnusable(str(error)) from error
        _log.info("galleries are searched on the CPU: %s", error)
        return FaissFlat


def _count() -> int:
    if not hasattr(faiss, "StandardGpuResources"):
        raise RuntimeError("this faiss is built for the CPU, vireid[gpu] brings the other one")
    start_cuda()  # FAISS would end the process where CUDA does not
    return int(faiss.get_num_gpus())


def _on_gpus(gpus: Sequence[Gpu]) -> BuildIndex:
    if not gpus:
        raise RuntimeError("there is no GPU")
    for gpu in gpus:
        _check(gpu)
    return partial(GpuFlat, gpus)


def _check(gpu: Gpu) -> None:
    made: list[GpuFlat] = []

    def build(dimension: int, vector_type: VectorType) -> GpuFlat:
        made.append(GpuFlat([gpu], dimension, vector_type, rows=64))  # few, so that the test reaches the GPU
        return made[-1]

    check_filter(build)
    if not all(index.on_gpu for index in made):
        raise RuntimeError("a GPU failed its test, or has too little free memory")


def _room(rows: int, dimension: int) -> int:
    """Bytes of GPU memory that are taken while so many vectors are loaded.

    float16, twice, since FAISS copies what it has to a larger place when another part comes; and the part, in float32
    and float16.
    """
    return dimension * (2 * 2 * rows + (4 + 2) * min(rows, _PART))


def _part(allowed: Mask, start: int, end: int) -> Mask:
    """Rows ``start`` to ``end`` of a mask, which may end before."""
    part = allowed[start:end]
    return np.pad(part, (0, end - start - len(part)))
