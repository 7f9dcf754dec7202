"""Search programs in separate processes, and the vectors that all of them search."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.machine import ROOT
from benchmarks.harness.models import CACHE
from benchmarks.harness.peers import PYTHON
from benchmarks.harness.process import Process, started

__all__ = ["CAMERAS", "QUERIES", "Answer", "Searcher", "Vectors", "open_searcher", "random_vectors", "recall"]

CAMERAS = 100
QUERIES = 64
_CROPS = 20  # of a person
_SPREAD = 0.8
"""Length of a crop's random difference from its person's vector, which has length 1."""
_BLOCK = 50_000


@dataclass(frozen=True, slots=True)
class Vectors:
    """Files of float16 unit vectors ``[n, D]`` and float32 queries ``[64, D]``."""

    vectors: Path
    queries: Path

    def exact(self, cameras: int | None, k: int) -> NDArray[np.int64]:
        """Return the k best rows of each query among the first ``cameras`` cameras, by brute force, unordered."""
        stored, queries = np.load(self.vectors, mmap_mode="r"), np.load(self.queries)
        scores = np.empty((len(queries), len(stored)), np.float32)
        for start in range(0, len(stored), _BLOCK):
            scores[:, start : start + _BLOCK] = queries @ stored[start : start + _BLOCK].astype(np.float32).T
        if cameras is not None:
            scores[:, np.arange(len(stored)) % CAMERAS >= cameras] = -np.inf
        return np.argpartition(scores, -k, axis=1)[:, -k:]


@dataclass(frozen=True, slots=True)
class Answer:
    """Median milliseconds of a call, and the rows ``[q, k]``."""

    ms: float
    rows: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Searcher:
    """A search program that has loaded all vectors; it is paused except during a search."""

    process: Process
    open_s: float

    def search(self, queries: int, cameras: int | None, seconds: float, k: int = 10) -> Answer:
        """Repeat a search for about ``seconds``.

        Raises:
            RuntimeError: the search failed.
        """
        with self.process.running():
            request = {"queries": queries, "k": k, "cameras": cameras, "seconds": seconds}
            answer = self.process.call(request)
        return Answer(answer["ms"], np.array(answer["rows"], np.int64))


def recall(found: NDArray[np.int64], exact: NDArray[np.int64]) -> float:
    """Return the share of the exact rows among the found ones, averaged over the queries."""
    pairs = zip(found, exact, strict=False)
    return float(np.mean([len(np.intersect1d(*pair)) / exact.shape[1] for pair in pairs]))


@contextmanager
def open_searcher(name: str, data: Vectors, *, ours: bool = False) -> Iterator[Searcher]:
    """Run ``benchmarks.searchers.NAME`` with ``data``.

    Raises:
        RuntimeError: it cannot be opened.
    """
    with TemporaryDirectory(dir=_create_folder(CACHE / "scratch")) as scratch:
        words = [
            sys.executable if ours else PYTHON,
            "-m",
            "benchmarks.searchers",
            name,
            data.vectors,
            data.queries,
            scratch,
        ]
        with started(words, Path(scratch) / "log", {"PYTHONPATH": str(ROOT)}, piped=True) as process:
            opened = process.receive()
            process.pause()
            yield Searcher(process, opened["open_s"])


def random_vectors(count: int, dimension: int) -> Vectors:
    """Return cached vectors of random people with 20 crops each. Queries are further crops of some of them."""
    folder = _create_folder(CACHE / "vectors")
    files = Vectors(folder / f"{count}x{dimension}.npy", folder / f"{count}x{dimension}-queries.npy")
    if not files.queries.exists():
        draw = np.random.default_rng(0)
        people = _unit(draw.standard_normal((-(-count // _CROPS), dimension), np.float32))
        stored = np.lib.format.open_memmap(files.vectors, "w+", np.float16, (count, dimension))
        for start in range(0, count, _BLOCK):
            rows = np.arange(start, min(start + _BLOCK, count))
            stored[rows] = _crops(people[rows // _CROPS], draw)
        stored.flush()
        np.save(files.queries, _crops(people[draw.integers(len(people), size=QUERIES)], draw))
    return files


def _crops(people: NDArray[np.float32], draw: np.random.Generator) -> NDArray[np.float32]:
    own = draw.standard_normal(people.shape, np.float32) * (_SPREAD / people.shape[1] ** 0.5)
    return _unit(people + own)


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    length: NDArray[np.float32] = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / length


def _create_folder(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
