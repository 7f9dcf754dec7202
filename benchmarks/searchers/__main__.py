"""A search program in its own process: ``python -m benchmarks.searchers NAME VECTORS.npy QUERIES.npy SCRATCH``.

Prints ``{"open_s": …}`` once the vectors are loaded. Then it answers each input line ``{"queries", "k", "cameras",
"seconds"}`` with ``{"ms", "rows"}``: the median milliseconds of a call, measured in this process, and the found rows.
NAME is a module of this package with ``open_search(vectors, scratch)``, which returns a function of queries, float32
``[q, D]``, k, and how many of the 100 cameras are allowed (None: all; row i belongs to camera i % 100); its result is
rows ``[q, k]``.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from importlib import import_module
from pathlib import Path

import numpy as np

from benchmarks.harness.statistics import sample


def main(name: str, vectors: Path, queries: Path, scratch: Path) -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # output of libraries must not mix with the responses
    stored = np.load(vectors, mmap_mode="r")
    stored_queries = np.load(queries)
    started = time.perf_counter()
    search = import_module(f"benchmarks.searchers.{name}").open_search(stored, scratch)
    print(json.dumps({"open_s": round(time.perf_counter() - started, 2)}), file=answers)
    for line in sys.stdin:
        request = json.loads(line)
        some = stored_queries[: request["queries"]]
        call = lambda some=some, request=request: search(some, request["k"], request["cameras"])  # noqa: E731
        found = np.asarray(call())
        took = statistics.median(sample(call, request["seconds"]))
        print(json.dumps({"ms": 1e3 * took, "rows": found.tolist()}), file=answers)


if __name__ == "__main__":
    main(sys.argv[1], *map(Path, sys.argv[2:]))
