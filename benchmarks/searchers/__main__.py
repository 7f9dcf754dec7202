"""One way to search, in a process of its own: ``python -m benchmarks.searchers NAME VECTORS.npy QUERIES.npy SCRATCH``.

Says ``{"open_s": …}`` once everything is in. Then answers each line ``{"queries", "k", "cameras", "seconds"}`` of its
input with ``{"ms", "rows"}``: the median milliseconds of a call, measured here, and the rows that it found.
NAME is a module beside this one with ``open_search(vectors, scratch)``, which returns a function of queries float32
``[q, D]``, k, and how many of the 100 cameras are allowed (None: all; row i is of camera i % 100); it gives rows
``[q, k]``.
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
    os.dup2(2, 1)  # what libraries print is no answer
    stored = np.load(vectors, mmap_mode="r")
    asked = np.load(queries)
    started = time.perf_counter()
    search = import_module(f"benchmarks.searchers.{name}").open_search(stored, scratch)
    print(json.dumps({"open_s": round(time.perf_counter() - started, 2)}), file=answers)
    for line in sys.stdin:
        wish = json.loads(line)
        some = asked[: wish["queries"]]
        call = lambda some=some, wish=wish: search(some, wish["k"], wish["cameras"])  # noqa: E731
        found = np.asarray(call())
        took = statistics.median(sample(call, wish["seconds"]))
        print(json.dumps({"ms": 1e3 * took, "rows": found.tolist()}), file=answers)


if __name__ == "__main__":
    main(sys.argv[1], *map(Path, sys.argv[2:]))
