"""What ``docs/performance.md`` takes from the results: tables between its marks, and two plots."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.harness import results
from benchmarks.harness.machine import ROOT

__all__ = ["DOCUMENT", "parts", "write_report"]

DOCUMENT = ROOT / "docs" / "performance.md"


def parts(found: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """The generated parts of the document by the names of their marks."""
    return {"figures": results.figures(found), **{name: results.tables(result) for name, result in found.items()}}


def write_report(folder: Path) -> None:
    """Bring the document up to the results in ``folder``."""
    found = results.read(folder)
    DOCUMENT.write_text(results.inserted(DOCUMENT.read_text("utf-8"), parts(found)), "utf-8")
    plots = DOCUMENT.parent / "performance"
    from benchmarks.harness.plots import clients, gallery_sizes  # Matplotlib takes its time

    plots.mkdir(exist_ok=True)
    if "search" in found:
        gallery_sizes(found["search"], plots / "search.svg")
    if "embedding" in found:
        clients(found["embedding"], plots / "clients.svg")
