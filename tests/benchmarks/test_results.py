"""Result files, their tables, and the generated parts of docs/performance.md."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.harness import results
from benchmarks.harness.effort import QUICK, BenchmarkResult
from benchmarks.harness.statistics import ratio
from benchmarks.report import REPORT, parts

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
MACHINE = {"processor": "P", "cores": 2, "memory_gib": 23.4, "commit": "abc", "date": "2026-11-21", "load_before": 0.1}


def test_a_table_has_a_column_for_every_key() -> None:
    rows = [{"a": "x|y", "b": 12345.6}, {"a": "z", "c": None}, {"c": 1000}]
    assert results.table(rows).splitlines() == [
        "| a | b | c |",
        "| --- | --- | --- |",
        r"| x\|y | 12,345.6 | – |",
        "| z | – | – |",
        "| – | – | 1,000 |",
    ]


def test_written_result_is_read_back_with_its_origin(tmp_path: Path) -> None:
    found = BenchmarkResult(
        tables={"one": [{"ms": 3}]},
        figures=[ratio("a / b", [1.0], [4.0], "at least", 0.5), ratio("c / d", [1.0], [1.0], "at most", 2)],
        missing=["Milvus: does not start"],
    )
    results.write(tmp_path / "search.json", "search", "python -m benchmarks search", MACHINE, QUICK, found)
    read = results.read(tmp_path)
    text = results.tables(read["search"])
    assert "`python -m benchmarks search` at abc, 2026-11-21; P, 2 cores, 23.4 GiB; load before 0.1." in text
    assert "**one**\n\n| ms |\n| --- |\n| 3 |" in text
    assert "Not measured: Milvus: does not start" in text
    lines = results.figures(read).splitlines()
    assert lines[2] == "| search | a / b | 0.25 | 0.25 … 0.25 | at least 0.5 | **no** |"
    assert lines[3].endswith("| at most 2 | yes |")


def test_insert_parts_is_repeatable() -> None:
    document = "a\n<!-- begin x -->\nold\n<!-- end x -->\nb\n"
    once = results.insert_parts(document, {"x": r"new \1"})
    assert once == "a\n<!-- begin x -->\n\nnew \\1\n\n<!-- end x -->\nb\n"
    assert results.insert_parts(once, {"x": r"new \1"}) == once
    with pytest.raises(ValueError, match="marks of y"):
        results.insert_parts(document, {"y": ""})


def test_performance_page_is_up_to_date() -> None:
    found = results.read(RESULTS)
    assert found, "no results: run `make bench`"
    document = REPORT.read_text("utf-8")
    assert results.insert_parts(document, parts(found)) == document, "run `python -m benchmarks report`"
