"""Run benchmarks and write their results.

    python -m benchmarks [NAME …] [--quick] [--out FOLDER]     run the named benchmarks, or all
    python -m benchmarks report                                write the results to docs/performance.md

Each benchmark writes FOLDER/NAME.json. The default is benchmarks/results, for which the report is also updated.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from benchmarks.harness import results
from benchmarks.harness.effort import FULL, QUICK, BenchmarkResult, Effort
from benchmarks.harness.machine import ROOT, describe
from benchmarks.harness.wrk import WrkMissing
from benchmarks.report import write_report

RESULTS = ROOT / "benchmarks" / "results"
NAMES = ("embedding", "engines", "search", "galleries", "imports", "gpu")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", choices=[[], *NAMES, "report"], metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--quick", action="store_true", help="fewer rounds, shorter, no large galleries")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that child processes are stopped
    for name in arguments.names or NAMES:
        if name != "report":
            _measure(name, QUICK if arguments.quick else FULL, arguments.out)
    if arguments.out == RESULTS:
        write_report(RESULTS)


def _measure(name: str, effort: Effort, out: Path) -> None:
    measure: Callable[[Effort], BenchmarkResult] = import_module(f"benchmarks.{name}").measure
    machine, started = describe(), time.perf_counter()
    print(f"{name} …", file=sys.stderr, flush=True)
    try:
        result = measure(effort)
    except WrkMissing as error:
        sys.exit(f"{name}: {error}")
    command = f"python -m benchmarks {name}{' --quick' if effort.quick else ''}"
    results.write(out / f"{name}.json", name, command, machine, effort, result)
    print(f"{name}: {time.perf_counter() - started:.0f} s", file=sys.stderr)
    for figure in result.figures:
        verdict = "kept" if figure.kept else "MISSED"
        print(f"  {figure.name}: {figure.value:.3g} ({figure.bound} {figure.limit}), {verdict}", file=sys.stderr)
    for text in result.missing:
        print(f"  not measured: {text}", file=sys.stderr)


if __name__ == "__main__":
    main()
