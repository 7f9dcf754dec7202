"""Result files, and their presentation as Markdown."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness.effort import BenchmarkResult, Effort, Row

__all__ = ["figures", "insert_parts", "read", "table", "tables", "write"]


def write(
    path: Path, name: str, command: str, machine: Mapping[str, Any], effort: Effort, found: BenchmarkResult
) -> None:
    """Write the result of a benchmark."""
    content = {
        "benchmark": name,
        "command": command,
        "quick": effort.quick,
        "rounds": effort.rounds,
        "machine": machine,
        "figures": [figure.as_json() for figure in found.figures],
        "tables": found.tables,
        "missing": found.missing,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", "utf-8")


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """Return all results of a folder by name."""
    return {path.stem: json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("*.json"))}


def table(rows: Sequence[Row]) -> str:
    """Return a Markdown table with a column for every key of any row, in order of appearance."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [columns, ["---"] * len(columns), *([_cell(row.get(column)) for column in columns] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def figures(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a table of all figures with a limit."""
    rows = [
        {
            "benchmark": name,
            "figure": figure["name"],
            "median": figure["value"],
            "least … largest": f"{figure['low']} … {figure['high']}",
            "limit": f"{figure['bound']} {figure['limit']}",
            "kept": "yes" if figure["kept"] else "**no**",
        }
        for name, result in results.items()
        for figure in result["figures"]
    ]
    return table(rows)


def tables(result: Mapping[str, Any]) -> str:
    """Return the origin of a result, its tables, and what was not measured."""
    machine = result["machine"]
    origin = (
        f"`{result['command']}` at {machine['commit']}, {machine['date']}; {machine['processor']}, "
        f"{machine['cores']} cores, {machine['memory_gib']} GiB; load before {machine['load_before']}."
    )
    parts = [f"**{title}**\n\n{table(rows)}" for title, rows in result["tables"].items()]
    missing = [f"Not measured: {text}" for text in result["missing"]]
    return "\n\n".join([origin, *parts, *missing])


def insert_parts(document: str, parts: Mapping[str, str]) -> str:
    """Return ``document`` with each part between its marks, ``<!-- begin NAME -->`` and ``<!-- end NAME -->``.

    Raises:
        ValueError: a mark is missing.
    """
    for name, part in parts.items():
        marks = re.compile(rf"(<!-- begin {name} -->\n).*?(<!-- end {name} -->)", re.DOTALL)
        if not marks.search(document):
            raise ValueError(f"the document lacks the marks of {name}")
        document = marks.sub(lambda found, part=part: f"{found[1]}\n{part}\n\n{found[2]}", document)
    return document


def _cell(value: Any) -> str:
    return "–" if value is None else f"{value:,}" if isinstance(value, int | float) else str(value).replace("|", r"\|")
