"""A report: Markdown with tables and charts that are generated from result files and logs."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from training.evaluation.comparison import comparison
from training.evaluation.figures.bands import draw_bands
from training.evaluation.figures.curves import Log, read_log
from training.evaluation.figures.scores import draw_scores
from training.evaluation.result import Result, read_results
from training.evaluation.table import markdown
from training.experiments.study import PLAN, read_study, row_runs
from training.translation.comparison import QUALITIES, TranslatorComparison

__all__ = ["CURVES", "SCORES", "Report"]

CURVES, SCORES = "curves.svg", "scores.svg"
_LOGS = ("training.csv", "validation.csv")
_BLOCK = re.compile(r"<!-- begin: (?P<name>\S+) -->\n.*?<!-- end: (?P=name) -->", re.DOTALL)
_CAPTION = (
    "Line: mean of the runs; band: lowest to highest. Losses are sums of different terms in each row: compare their "
    "courses, not their values."
)


@dataclass(frozen=True, slots=True)
class Report:
    """A Markdown file with blocks between ``<!-- begin: FOLDER -->`` and ``<!-- end: FOLDER -->``.

    The file is RESULTS/report/NAME.md. FOLDER, relative to the file, contains a study or run copied by ``vireid results
    collect``, an exported model with its results, or the JSON file of ``vireid translator compare``.
    """

    file: Path

    @property
    def folders(self) -> list[str]:
        """The folders of the blocks, in the order of the file."""
        return [block["name"] for block in _BLOCK.finditer(self.file.read_text("utf-8"))]

    def rendered(self) -> str:
        """Return the text with every block generated from its folder.

        Raises:
            OSError: a file cannot be read.
            ValueError: a folder contains no results, or a study below RESULTS has no block.
        """
        root = self.file.parent
        for plan in sorted(root.parent.rglob(PLAN)):
            name = Path(os.path.relpath(plan.parent, root)).as_posix()
            if name not in self.folders:
                raise ValueError(
                    f"{self.file} has no block for {name}: add the lines "
                    f"<!-- begin: {name} --> and <!-- end: {name} -->"
                )

        def block(found: re.Match[str]) -> str:
            name = found["name"]
            return f"<!-- begin: {name} -->\n\n{_text(root, name)}\n\n<!-- end: {name} -->"

        return _BLOCK.sub(block, self.file.read_text("utf-8"))

    def render(self) -> list[Path]:
        """Write the text and draw the charts of all folders; return the written files.

        Raises:
            OSError, ValueError: see :meth:`rendered`; nothing is written.
        """
        text = self.rendered()
        written = [self.file]
        for name in self.folders:
            folder = Path(os.path.normpath(self.file.parent / name))
            charts: dict[Path, Figure] = {}
            if rows := _logs(folder):
                charts[folder / CURVES] = draw_bands(rows)
            if study := _repeated_study(folder):
                charts[folder / SCORES] = draw_scores(study)
            for path, figure in charts.items():
                _save(figure, path)
            written += charts
        self.file.write_text(text, "utf-8")
        return written


def _text(root: Path, name: str) -> str:
    folder = root / name
    parts = []
    if (folder / PLAN).is_file():
        parts.append(comparison(read_study(folder)))
    if folder.is_dir() and (results := read_results(folder)):
        parts.append(markdown(results, mixed=True))
    if (folder / QUALITIES).is_file():
        parts.append(TranslatorComparison.read(folder / QUALITIES).markdown())
    if _repeated_study(folder):
        parts.append(f"![mAP of each row]({name}/{SCORES})")
    if _logs(folder):
        parts.append(f"![Training curves]({name}/{CURVES})\n\n{_CAPTION}")
    if not parts:
        raise ValueError(f"{folder}: expected a collected study or run, an exported model with results, or {QUALITIES}")
    return "\n\n".join(part.strip() for part in parts)


def _repeated_study(folder: Path) -> dict[str, list[Result]]:
    """Return the results by row of a study with several rows and several runs of a row; else nothing."""
    if not (folder / PLAN).is_file():
        return {}
    rows = read_study(folder)
    return rows if len(rows) > 1 and any(len(row_runs(folder, row)) > 1 for row in rows) else {}


def _logs(folder: Path) -> dict[str, list[Log]]:
    """Return the logs of a study by row, or those of a run under its name."""
    if (folder / PLAN).is_file():
        return {row: [log for run in row_runs(folder, row) for log in _logs_of(run)] for row in read_study(folder)}
    logs = list(_logs_of(folder))
    return {folder.name: logs} if logs else {}


def _logs_of(run: Path) -> Iterator[Log]:
    return (read_log(run / name) for name in _LOGS if (run / name).is_file())


def _save(figure: Figure, path: Path) -> None:
    """Write a reproducible SVG with text as text, not as paths."""
    with matplotlib.rc_context({"svg.hashsalt": "vireid", "svg.fonttype": "none"}):
        figure.savefig(path, metadata={"Date": None})
