"""The report of all benchmarks: generated tables between markers, and two charts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.harness import results
from benchmarks.harness.machine import ROOT

__all__ = ["REPORT", "parts", "write_report"]

REPORT = ROOT / "benchmarks" / "report" / "README.md"


def parts(found: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return the generated parts of the report by the names of their markers."""
    return {"figures": results.figures(found), **{name: results.tables(result) for name, result in found.items()}}


def write_report(folder: Path) -> None:
    """Update the report from the result files in a folder."""
    found = results.read(folder)
    REPORT.write_text(results.insert_parts(REPORT.read_text("utf-8"), parts(found)), "utf-8")
    from benchmarks.harness.plots import clients, gallery_sizes  # slow to import

    if "search" in found:
        gallery_sizes(found["search"], REPORT.with_name("search.svg"))
    if "embedding" in found:
        clients(found["embedding"], REPORT.with_name("clients.svg"))
