"""Speed and memory of the evaluator: ``python -m benchmarks.evaluation [--large] [--dimension D]``.

Prints one JSON object. Scores come from random vectors, because speed and memory do not depend on their quality.

``sysu``: the multi-shot size of SYSU-MM01, 3,803 × 3,010 images of 96 identities with the cam3/cam2 rule, from
precomputed scores. The evaluator is compared with three loops over the queries, and all results must agree.
``plain_loop`` is pure Python, like the tests' oracle; ``python_loop`` sorts with NumPy and counts in Python, as public
evaluators do; ``numpy_loop`` uses NumPy for each query. ``from_vectors_s`` includes the inner products. The evaluator
uses all cores, a loop only one.

``large`` (``--large``): 100,000 × 100,000 images of 1,000 identities, from vectors. ``peak_mib`` is the peak memory of
the process, ``inputs_mib`` the part that the vectors take.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from training.evaluation.embeddings import Embeddings
from training.evaluation.exclusion import Exclusion, excluded
from training.evaluation.metrics import evaluate
from training.evaluation.similarity import Scores, Similarity

T = TypeVar("T")
Names = NDArray[np.str_]

Triple = tuple[float, float, float]
"""Rank-1, mAP, mINP."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--large", action="store_true", help="measure 100,000 x 100,000 too (minutes)")
    parser.add_argument("--dimension", type=int, default=256, help="length of a vector (default 256)")
    parser.add_argument("--repeats", type=int, default=3, help="number of runs; the best time is reported")
    options = parser.parse_args()
    report = {"sysu": sysu(options.dimension, options.repeats)}
    if options.large:
        report["large"] = large(options.dimension)
    print(json.dumps(report, indent=2))


def sysu(dimension: int, repeats: int) -> dict[str, object]:
    """Measure the speed at 3,803 × 3,010 images."""
    query = random_embeddings(3803, 96, ("cam3", "cam6"), dimension, seed=0)
    gallery = random_embeddings(3010, 96, ("cam1", "cam2", "cam4", "cam5"), dimension, seed=1)
    scores = Similarity(query.vectors, gallery.vectors)(slice(0, len(query)))
    mask = excluded(Exclusion.CAM3_CAM2, query, gallery)
    assert mask is not None

    def ours() -> Triple:
        metrics = evaluate(query, gallery, Exclusion.CAM3_CAM2, scores=lambda rows: scores[rows])
        return metrics.rank1, metrics.mean_ap, metrics.mean_inp

    seconds, expected = best(ours, repeats)
    report: dict[str, object] = {"queries": len(query), "gallery": len(gallery), "ours_s": round(seconds, 3)}
    loops = (("numpy_loop", loop_in_numpy), ("python_loop", loop_in_python), ("plain_loop", loop_in_plain_python))
    for name, loop in loops:
        taken, found = best(partial(loop, scores, query.identities, gallery.identities, mask), 1 + (repeats - 1) // 4)
        if not np.allclose(found, expected, rtol=1e-12):
            raise AssertionError(f"{name} found {found}, the evaluator {expected}")
        report |= {f"{name}_s": round(taken, 3), f"{name}_ratio": round(taken / seconds, 1)}
    end_to_end, _ = best(lambda: evaluate(query, gallery, Exclusion.CAM3_CAM2), repeats)
    return report | {"dimension": dimension, "from_vectors_s": round(end_to_end, 3)}


def large(dimension: int, count: int = 100_000) -> dict[str, object]:
    """Measure time and memory at 100,000 × 100,000 images."""
    query = random_embeddings(count, 1000, ("cam1", "cam2", "cam3"), dimension, seed=2)
    gallery = random_embeddings(count, 1000, ("cam1", "cam2", "cam3"), dimension, seed=3)
    before = peak_mib()
    start = time.perf_counter()
    metrics = evaluate(query, gallery, Exclusion.SAME_ID_SAME_CAM)
    return {
        "queries": metrics.queries,
        "gallery": metrics.gallery,
        "dimension": dimension,
        "seconds": round(time.perf_counter() - start, 1),
        "inputs_mib": round((query.vectors.nbytes + gallery.vectors.nbytes) / 2**20),
        "peak_before_mib": before,
        "peak_mib": peak_mib(),
    }


def loop_in_numpy(
    scores: Scores, query: NDArray[np.str_], gallery: NDArray[np.str_], mask: NDArray[np.bool_]
) -> Triple:
    """Evaluate one query after the other with NumPy."""
    identity_of = np.unique(gallery, return_inverse=True)
    codes, own = identity_of[1], np.searchsorted(identity_of[0], query)
    results = []
    for q in range(len(query)):
        order = np.argsort(-scores[q], kind="stable")
        ranked = codes[order[~mask[q, order]]]
        places = np.flatnonzero(ranked == own[q]) + 1
        if not len(places):
            continue
        listed = ranked[np.sort(np.unique(ranked, return_index=True)[1])]
        precision = np.arange(1, len(places) + 1) / places
        results.append((listed[0] == own[q], precision.mean(), len(places) / places[-1]))
    rank1, precision, penalty = np.mean(results, axis=0)
    return float(rank1), float(precision), float(penalty)


def loop_in_python(scores: Scores, query: Names, gallery: Names, mask: NDArray[np.bool_]) -> Triple:
    """Evaluate one query after the other: sorted by NumPy, counted in Python."""
    results: list[Triple] = []
    for q in range(len(query)):
        order = np.argsort(-scores[q], kind="stable")
        count_hits(str(query[q]), gallery[order[~mask[q, order]]].tolist(), results)
    rank1, precision, penalty = np.mean(results, axis=0)
    return float(rank1), float(precision), float(penalty)


def loop_in_plain_python(scores: Scores, query: Names, gallery: Names, mask: NDArray[np.bool_]) -> Triple:
    """Evaluate one query after the other: sorted and counted in Python."""
    results: list[Triple] = []
    names = gallery.tolist()
    for q in range(len(query)):
        row, left_out = scores[q].tolist(), mask[q].tolist()
        order = sorted((g for g in range(len(names)) if not left_out[g]), key=lambda g: (-row[g], g))
        count_hits(str(query[q]), [names[g] for g in order], results)
    rank1, precision, penalty = np.mean(results, axis=0)
    return float(rank1), float(precision), float(penalty)


def count_hits(own: str, ranked: list[str], results: list[Triple]) -> None:
    """Add Rank-1, AP and INP of one query."""
    precisions: list[float] = []
    for place, identity in enumerate(ranked, start=1):
        if identity == own:
            precisions.append((len(precisions) + 1) / place)
            last = place
    if precisions:
        listed = list(dict.fromkeys(ranked))
        results.append((float(listed[0] == own), float(np.mean(precisions)), len(precisions) / last))


def best(function: Callable[[], T], repeats: int) -> tuple[float, T]:
    """Return the shortest time of several calls, in seconds, and the function's result."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = function()
        times.append(time.perf_counter() - start)
    return min(times), result


def random_embeddings(count: int, people: int, cameras: tuple[str, ...], dimension: int, seed: int) -> Embeddings:
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((count, dimension), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    identities = rng.integers(0, people, count).astype(np.str_)
    return Embeddings(vectors, identities, rng.choice(cameras, count), np.zeros(count, dtype=np.int64))


def peak_mib() -> int:
    """Return the peak memory of this process (Linux)."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


if __name__ == "__main__":
    main()
