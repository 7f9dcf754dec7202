"""What a search costs: our index and those that one would pick instead over the same vectors, in process and over HTTP.

Vectors are float16 values, so that every program searches the same numbers whatever it stores. Ours and one other take
turns, case by case; the one that is not asked stands still. An answer counts only with the recall beside it, and ours
must be faster than those that are exact.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from benchmarks.galleries import GALLERY, copied, filled
from benchmarks.harness.effort import Effort, Found, Row
from benchmarks.harness.machine import available_bytes, read_bandwidth
from benchmarks.harness.searcher import Answer, Searcher, recall, searching, vectors_of
from benchmarks.harness.server import serving
from benchmarks.harness.statistics import alternate, ratio
from benchmarks.harness.wrk import check_wrk, post
from server.gallery.index import Rows
from server.gallery.types import VectorType

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
"""Memory that a program takes, in multiples of the float16 vectors, all told."""
LARGE = (1_000_000, 512)
QUICK_PROGRAMS = {
    (10_000, 512): {"FAISS IndexFlatIP", "FAISS SQfp16", "usearch exact", "usearch HNSW"},
    (100_000, 512): PROGRAMS.keys() - {"usearch HNSW"},
    (10_000, 2048): {"FAISS IndexFlatIP", "FAISS SQfp16", "usearch exact"},
    LARGE: {"FAISS SQfp16"},
    (1_000_000, 2048): {"FAISS SQfp16"},
}
GRAPH_ITEMS = 100_000
"""Largest gallery that a graph is built for: building takes minutes already."""
FILTERS = {None: "0 %", 10: "90 %", 1: "99 %"}
K = 10

OF_BANDWIDTH = 0.8
CHEAPER_IN_16 = 4.0
RESERVE = 2 * 2**30


@dataclass(frozen=True, slots=True)
class Case:
    """So many queries at once, among so many of the 100 cameras (None: all)."""

    queries: int
    cameras: int | None

    def ask(self, searcher: Searcher, seconds: float) -> Answer:
        """Let it be answered again and again."""
        return searcher.ask(self.queries, self.cameras, seconds, K)


CASES = [Case(count, cameras) for cameras in FILTERS for count in (1, 16, 64)]
QUICK_CASES = [Case(1, None), Case(16, None), Case(64, None), Case(1, 10), Case(1, 1)]


def measure(effort: Effort) -> Found:
    """Every size that is asked for and fits into memory."""
    check_wrk()
    found = Found()
    sizes = list(QUICK_PROGRAMS)
    if not effort.quick:
        sizes.append((100_000, 2048))
    for count, dimension in sizes:
        _measure_size(effort, found, count, dimension)
    for count in (100_000,) if effort.quick else (100_000, 1_000_000):
        _measure_http(effort, found, count, 512)
    return found


@dataclass(slots=True)
class _Rival:
    """The fastest other exact program in a case: its milliseconds and ours, round by round."""

    name: str
    theirs: list[float]
    ours: list[float]


def _measure_size(effort: Effort, found: Found, count: int, dimension: int) -> None:
    size = f"{count:,} × {dimension}"
    if available_bytes() < 3 * 2 * count * dimension + RESERVE:
        found.missing.append(f"{size}: not enough memory")
        return
    data = vectors_of(count, dimension)
    exact = {cameras: data.exact(cameras, K) for cameras in FILTERS}
    cases, seconds = QUICK_CASES if effort.quick else CASES, effort.seconds / 5
    rivals: dict[Case, _Rival] = {}
    with searching("ours", data, ours=True) as ours:
        if (count, dimension) == LARGE:
            _own_figures(effort, found, ours, seconds)
        rows = [_row(OURS, case, [case.ask(ours, seconds) for _ in range(effort.rounds)], exact) for case in cases]
        for name in _programs(effort, found, count, dimension):
            try:
                with searching(PROGRAMS[name], data) as other:
                    for case in cases:
                        if case.cameras is not None and name in UNFILTERED_ONLY:
                            continue
                        asked = {each: partial(case.ask, each, seconds) for each in (ours, other)}
                        taken = alternate(asked, effort.rounds)
                        rows.append(_row(name, case, taken[other], exact))
                        rival = _Rival(name, *([answer.ms for answer in taken[each]] for each in (other, ours)))
                        if name not in APPROXIMATE:
                            rivals[case] = min(rivals.get(case, rival), rival, key=lambda each: np.median(each.theirs))
            except RuntimeError as error:
                found.missing.append(f"{name} at {size}: {error}")
    found.tables[f"in process, {size}"] = [{"items": count, "dimension": dimension, **row} for row in rows]
    for case, rival in rivals.items():
        title = f"{size}, {case.queries} at once, {FILTERS[case.cameras]} filtered out: {rival.name} / ours"
        found.figures.append(ratio(title, rival.theirs, rival.ours, "at least", 1.0))


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


def _own_figures(effort: Effort, found: Found, ours: Searcher, seconds: float) -> None:
    """The share of the memory's bandwidth, and what queries save together."""
    asked = {
        "one": lambda: ours.ask(1, None, seconds).ms,
        "sixteen": lambda: ours.ask(16, None, seconds).ms,
        "bandwidth": partial(read_bandwidth, seconds),
    }
    taken = alternate(asked, effort.rounds)
    count, dimension = LARGE
    size = f"{count:,} × {dimension}"
    read = [2 * count * dimension / ms * 1e3 for ms in taken["one"]]
    each = [ms / 16 for ms in taken["sixteen"]]
    speeds = {f"one query over {size}, stored bytes": read, "read by all cores": taken["bandwidth"]}
    found.tables["memory"] = [
        {"what": what, "GB/s": round(statistics.median(speed) / 1e9, 1)} for what, speed in speeds.items()
    ]
    found.figures += [
        ratio(f"{size}: stored bytes a second / read bandwidth", read, taken["bandwidth"], "at least", OF_BANDWIDTH),
        ratio(f"{size}: one query alone / each of 16", taken["one"], each, "at least", CHEAPER_IN_16),
    ]


def _programs(effort: Effort, found: Found, count: int, dimension: int) -> Iterable[str]:
    """Those that this size is for, and that fit."""
    for name in PROGRAMS:
        if effort.quick and name not in QUICK_PROGRAMS[count, dimension]:
            continue
        if name == "usearch HNSW" and count > GRAPH_ITEMS:
            found.missing.append(f"{name} at {count:,} × {dimension}: building the graph would take too long")
            continue
        if available_bytes() < COPIES[name] * 2 * count * dimension + RESERVE:
            found.missing.append(f"{name} at {count:,} × {dimension}: not enough memory")
            continue
        yield name


def _measure_http(effort: Effort, found: Found, count: int, dimension: int) -> None:
    """Searches of a gallery by vectors, as one client and eight see them."""
    rows: list[Row] = []
    vectors = np.random.default_rng(1).standard_normal((64, dimension)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)

    def search(number: int, cameras: int | None) -> dict[str, object]:
        where = {} if cameras is None else {"filter": {"cameras": [f"camera-{camera}" for camera in range(cameras)]}}
        return {"query": {"k": K, **where}, "vector": vectors[number].tolist(), "modality": "visible"}

    with copied(filled(count, dimension, VectorType.FLOAT16)) as data, serving(data=data) as server:
        address = f"{server.url}/v1/galleries/{GALLERY}"
        for cameras, filtered in FILTERS.items():
            wishes = {1: (f"{address}/search", search(0, cameras))}
            for queries in (16, 64):
                many = {"searches": [search(number, cameras) for number in range(queries)]}
                wishes[queries] = (f"{address}/searches", many)
            for queries, (url, wish) in wishes.items():
                for clients in (1, 8) if queries == 1 else (1,):
                    body = json.dumps(wish).encode()
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
    found.tables[f"over HTTP, {count:,} × {dimension}"] = rows
