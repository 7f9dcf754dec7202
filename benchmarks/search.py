"""Search latency of vireid's index and of other programs with the same vectors, in process and over HTTP.

Vectors are float16 values, so that every program searches the same vectors whatever type it stores. vireid and one
other program are measured alternately, case by case; the other process is paused meanwhile. Recall is reported with
each latency, and vireid must be faster than the exact programs.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from benchmarks.galleries import GALLERY, filled_data_dir, temporary_copy
from benchmarks.harness.effort import BenchmarkResult, Effort, Row
from benchmarks.harness.machine import available_bytes, read_bandwidth
from benchmarks.harness.searcher import Answer, Searcher, open_searcher, random_vectors, recall
from benchmarks.harness.server import serving
from benchmarks.harness.statistics import alternate, ratio
from benchmarks.harness.wrk import check_wrk, post
from server.domain.types import VectorType
from server.index.protocol import Rows

__all__ = ["measure"]

OURS = "vireid"
PROGRAMS = {
    "FAISS IndexFlatIP": "faiss_flat",
    "FAISS SQfp16": "faiss_half",
    "usearch exact": "usearch_exact",
    "usearch HNSW": "usearch_graph",
    "LanceDB": "lance",
    "Milvus": "milvus_server",
}
APPROXIMATE = {"usearch HNSW"}
UNFILTERED_ONLY = {"usearch exact", "usearch HNSW"}
COPIES = {"FAISS IndexFlatIP": 2, "FAISS SQfp16": 1, "usearch exact": 1, "usearch HNSW": 3, "LanceDB": 4, "Milvus": 8}
"""Total memory of a program, in multiples of the float16 vectors."""
LARGE = (1_000_000, 512)
QUICK_PROGRAMS = {
    (10_000, 512): {"FAISS IndexFlatIP", "FAISS SQfp16", "usearch exact", "usearch HNSW"},
    (100_000, 512): PROGRAMS.keys() - {"usearch HNSW"},
    (10_000, 2048): {"FAISS IndexFlatIP", "FAISS SQfp16", "usearch exact"},
    LARGE: {"FAISS SQfp16"},
    (1_000_000, 2048): {"FAISS SQfp16"},
}
GRAPH_ITEMS = 100_000
"""Largest gallery for which a graph is built; even this takes minutes."""
FILTERS = {None: "0 %", 10: "90 %", 1: "99 %"}
K = 10

OF_BANDWIDTH = 0.8
CHEAPER_IN_16 = 4.0
OF_UNCODED = {1: 0.6, 16: 0.7}
"""Limits of the time of a search with codes, relative to one without, for each number of queries at once."""
RESERVE = 2 * 2**30


@dataclass(frozen=True, slots=True)
class Case:
    """Number of queries per call, and how many of the 100 cameras to search (None: all)."""

    queries: int
    cameras: int | None

    def run(self, searcher: Searcher, seconds: float) -> Answer:
        """Repeat the search for about ``seconds``."""
        return searcher.search(self.queries, self.cameras, seconds, K)


CASES = [Case(count, cameras) for cameras in FILTERS for count in (1, 16, 64)]
QUICK_CASES = [Case(1, None), Case(16, None), Case(64, None), Case(1, 10), Case(1, 1)]


def measure(effort: Effort) -> BenchmarkResult:
    """Measure every size of this effort that fits into memory."""
    check_wrk()
    result = BenchmarkResult()
    sizes = list(QUICK_PROGRAMS)
    if not effort.quick:
        sizes.append((100_000, 2048))
    for count, dimension in sizes:
        _measure_size(effort, result, count, dimension)
    for count in (100_000,) if effort.quick else (100_000, 1_000_000):
        _measure_http(effort, result, count, 512)
    return result


@dataclass(slots=True)
class _Rival:
    """The fastest other exact program in a case, with its milliseconds and vireid's per round."""

    name: str
    theirs: list[float]
    ours: list[float]


def _measure_size(effort: Effort, result: BenchmarkResult, count: int, dimension: int) -> None:
    size = f"{count:,} × {dimension}"
    if available_bytes() < 3 * 2 * count * dimension + RESERVE:
        result.missing.append(f"{size}: not enough memory")
        return
    data = random_vectors(count, dimension)
    exact = {cameras: data.exact(cameras, K) for cameras in FILTERS}
    cases, seconds = QUICK_CASES if effort.quick else CASES, effort.seconds / 5
    rivals: dict[Case, _Rival] = {}
    with open_searcher("ours", data, ours=True) as ours:
        if (count, dimension) == LARGE:
            _own_figures(effort, result, ours, seconds)
            with open_searcher("ours_uncoded", data, ours=True) as uncoded:
                _gain_of_codes(effort, result, ours, uncoded, seconds)
        rows = [_row(OURS, case, [case.run(ours, seconds) for _ in range(effort.rounds)], exact) for case in cases]
        for name in _programs(effort, result, count, dimension):
            try:
                with open_searcher(PROGRAMS[name], data) as other:
                    for case in cases:
                        if case.cameras is not None and name in UNFILTERED_ONLY:
                            continue
                        calls = {each: partial(case.run, each, seconds) for each in (ours, other)}
                        taken = alternate(calls, effort.rounds)
                        rows.append(_row(name, case, taken[other], exact))
                        rival = _Rival(name, *([answer.ms for answer in taken[each]] for each in (other, ours)))
                        if name not in APPROXIMATE:
                            rivals[case] = min(rivals.get(case, rival), rival, key=lambda each: np.median(each.theirs))
            except RuntimeError as error:
                result.missing.append(f"{name} at {size}: {error}")
    result.tables[f"in process, {size}"] = [{"items": count, "dimension": dimension, **row} for row in rows]
    for case, rival in rivals.items():
        title = f"{size}, {case.queries} at once, {FILTERS[case.cameras]} filtered out: {rival.name} / ours"
        result.figures.append(ratio(title, rival.theirs, rival.ours, "at least", 1.0))


def _row(name: str, case: Case, answers: list[Answer], exact: Mapping[int | None, Rows]) -> Row:
    ms = statistics.median(answer.ms for answer in answers)
    return {
        "program": name,
        "queries": case.queries,
        "filtered out": FILTERS[case.cameras],
        "ms": round(ms, 2),
        "ms a query": round(ms / case.queries, 3),
        "recall at 10": round(min(recall(answer.rows, exact[case.cameras]) for answer in answers), 4),
    }


def _own_figures(effort: Effort, result: BenchmarkResult, ours: Searcher, seconds: float) -> None:
    """Measure the share of memory bandwidth used, and the saving of batched queries."""
    calls = {
        "one": lambda: ours.search(1, None, seconds).ms,
        "sixteen": lambda: ours.search(16, None, seconds).ms,
        "bandwidth": partial(read_bandwidth, seconds),
    }
    taken = alternate(calls, effort.rounds)
    count, dimension = LARGE
    size = f"{count:,} × {dimension}"
    read = [2 * count * dimension / ms * 1e3 for ms in taken["one"]]
    each = [ms / 16 for ms in taken["sixteen"]]
    speeds = {f"one query over {size}, stored bytes": read, "read by all cores": taken["bandwidth"]}
    result.tables["memory"] = [
        {"what": what, "GB/s": round(statistics.median(speed) / 1e9, 1)} for what, speed in speeds.items()
    ]
    result.figures += [
        ratio(f"{size}: stored bytes a second / read bandwidth", read, taken["bandwidth"], "at least", OF_BANDWIDTH),
        ratio(f"{size}: one query alone / each of 16", taken["one"], each, "at least", CHEAPER_IN_16),
    ]


def _gain_of_codes(effort: Effort, result: BenchmarkResult, ours: Searcher, uncoded: Searcher, seconds: float) -> None:
    """Measure the time of a search with codes relative to one of all vectors."""
    for queries, limit in OF_UNCODED.items():
        calls = {each: partial(Case(queries, None).run, each, seconds) for each in (ours, uncoded)}
        taken = alternate(calls, effort.rounds)
        times = ([answer.ms for answer in taken[each]] for each in (ours, uncoded))
        title = f"{LARGE[0]:,} × {LARGE[1]}, {queries} at once: with codes / without"
        result.figures.append(ratio(title, *times, "at most", limit))


def _programs(effort: Effort, result: BenchmarkResult, count: int, dimension: int) -> Iterable[str]:
    """Yield the programs to run at this size that fit into memory; record the others as missing."""
    for name in PROGRAMS:
        if effort.quick and name not in QUICK_PROGRAMS[count, dimension]:
            continue
        if name == "usearch HNSW" and count > GRAPH_ITEMS:
            result.missing.append(f"{name} at {count:,} × {dimension}: building the graph would take too long")
            continue
        if available_bytes() < COPIES[name] * 2 * count * dimension + RESERVE:
            result.missing.append(f"{name} at {count:,} × {dimension}: not enough memory")
            continue
        yield name


def _measure_http(effort: Effort, result: BenchmarkResult, count: int, dimension: int) -> None:
    """Measure searches of a gallery by vectors over HTTP, with one client and with eight."""
    rows: list[Row] = []
    vectors = np.random.default_rng(1).standard_normal((64, dimension)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)

    def search(number: int, cameras: int | None) -> dict[str, object]:
        where = {} if cameras is None else {"filter": {"cameras": [f"camera-{camera}" for camera in range(cameras)]}}
        return {"query": {"k": K, **where}, "vector": vectors[number].tolist(), "modality": "visible"}

    with temporary_copy(filled_data_dir(count, dimension, VectorType.FLOAT16)) as data, serving(data=data) as server:
        address = f"{server.url}/v1/galleries/{GALLERY}"
        for cameras, filtered in FILTERS.items():
            requests = {1: (f"{address}/search", search(0, cameras))}
            for queries in (16, 64):
                many = {"searches": [search(number, cameras) for number in range(queries)]}
                requests[queries] = (f"{address}/searches", many)
            for queries, (url, request) in requests.items():
                for clients in (1, 8) if queries == 1 else (1,):
                    body = json.dumps(request).encode()
                    seconds = effort.seconds * (1 if queries == 1 else 3)  # one answer takes seconds itself
                    load = post(url, body, {"Content-Type": "application/json"}, clients, seconds)
                    rows.append(
                        {
                            "items": count,
                            "dimension": dimension,
                            "queries": queries,
                            "filtered out": filtered,
                            "clients": clients,
                            "queries/s": round(load.rate * queries, 1),
                            "p50 ms": round(load.p50_ms, 2),
                            "p95 ms": round(load.p95_ms, 2),
                            "p99 ms": round(load.p99_ms, 2),
                        }
                    )
    result.tables[f"over HTTP, {count:,} × {dimension}"] = rows
