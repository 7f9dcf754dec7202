"""Plots of the benchmark results, which must be reproducible."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.harness.plots import clients, gallery_sizes

SEARCH: dict[str, Any] = {
    "tables": {
        f"in process, {items:,} × 512": [
            {"program": name, "items": items, "dimension": 512, "queries": queries, "filtered out": "0 %", "ms": ms}
            for name, ms in (("vireid", items / 1e4), ("Milvus", items / 1e3))
            for queries in (1, 16)
        ]
        for items in (10_000, 100_000)
    }
}
EMBEDDING: dict[str, Any] = {
    "tables": {
        "light, fp32: in process": [{"what": "batcher", "crops/s": 1}],
        "light, fp32: over HTTP": [
            {"server": server, "clients": count, "crops/s": 100.0, "p95 ms": 3.0 * count}
            for server in ("vireid", "LitServe")
            for count in (1, 8, 32)
        ],
    }
}


def test_search_plot_has_a_curve_per_program_and_is_reproducible(tmp_path: Path) -> None:
    gallery_sizes(SEARCH, tmp_path / "a.svg")
    gallery_sizes(SEARCH, tmp_path / "b.svg")
    text = (tmp_path / "a.svg").read_text("utf-8")
    assert text == (tmp_path / "b.svg").read_text("utf-8")
    assert all(f"<!-- {name} -->" in text for name in ("vireid", "Milvus", "items, 512 dimensions"))


def test_client_plot_shows_only_vireid(tmp_path: Path) -> None:
    clients(EMBEDDING, tmp_path / "a.svg")
    text = (tmp_path / "a.svg").read_text("utf-8")
    assert "<!-- light, fp32 -->" in text
    assert "LitServe" not in text
