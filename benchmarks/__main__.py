"""Measure, and write down what was found.

    python -m benchmarks [NAME …] [--quick] [--out FOLDER]     measure; without names everything
    python -m benchmarks report                                put the results into docs/performance.md

Each benchmark writes FOLDER/NAME.json. By default that is benchmarks/results, and then the report is made, too.
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
from benchmarks.harness.effort import FULL, QUICK, Effort, Found
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
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that nothing it has started stays
    for name in given.names or NAMES:
        if name != "report":
            _measure(name, QUICK if given.quick else FULL, given.out)
    if given.out == RESULTS:
        write_report(RESULTS)


def _measure(name: str, effort: Effort, out: Path) -> None:
    measure: Callable[[Effort], Found] = import_module(f"benchmarks.{name}").measure
    machine, started = describe(), time.perf_counter()
    print(f"{name} …", file=sys.stderr, flush=True)
    try:
        found = measure(effort)
    except WrkMissing as error:
        sys.exit(f"{name}: {error}")
    command = f"python -m benchmarks {name}{' --quick' if effort.quick else ''}"
    results.write(out / f"{name}.json", name, command, machine, effort, found)
    print(f"{name}: {time.perf_counter() - started:.0f} s", file=sys.stderr)
    for figure in found.figures:
        verdict = "kept" if figure.kept else "MISSED"
        print(f"  {figure.name}: {figure.value:.3g} ({figure.bound} {figure.limit}), {verdict}", file=sys.stderr)
    for text in found.missing:
        print(f"  not measured: {text}", file=sys.stderr)


if __name__ == "__main__":
    main()
