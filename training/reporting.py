"""A report whose tables and pictures are made anew from the result files and logs beside it, and from nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from training.evaluation.comparison import comparison
from training.evaluation.pictures.bands import draw_bands
from training.evaluation.pictures.curves import Log, read_log
from training.evaluation.table import markdown
from training.release import read_results
from training.study import PLAN, read_study, row_runs
from training.translator.comparing import QUALITIES, TranslatorComparison

__all__ = ["CURVES", "Report"]

CURVES = "curves.svg"
_LOGS = ("training.csv", "validation.csv")
_BLOCK = re.compile(r"<!-- begin: (?P<name>\S+) -->\n.*?<!-- end: (?P=name) -->", re.DOTALL)
_CAPTION = (
    "Line: mean of the runs; band: lowest to highest. Losses are sums of each row's own terms: compare how they run, "
    "not how high."
)


@dataclass(frozen=True, slots=True)
class Report:
    """A Markdown file with blocks between ``<!-- begin: FOLDER -->`` and ``<!-- end: FOLDER -->``.

    FOLDER, relative to the file, is what ``vireid results collect`` left of a study or a run, an exported model with
    its results, or a folder with the JSON file of ``vireid translator compare``.
    """

    file: Path

    @property
    def folders(self) -> list[str]:
        """The folders named, in their order."""
        return [block["name"] for block in _BLOCK.finditer(self.file.read_text("utf-8"))]

    def rendered(self) -> str:
        """The text with every block made anew.

        Raises:
            OSError: a file cannot be read.
            ValueError: a folder holds nothing to tell, or a study collected beside the report is not named in it.
        """
        root = self.file.parent
        for plan in sorted((root / "results").rglob(PLAN)):
            name = plan.parent.relative_to(root).as_posix()
            if name not in self.folders:
                raise ValueError(
                    f"{self.file} has no place for {name}: add the lines "
                    f"<!-- begin: {name} --> and <!-- end: {name} -->"
                )

        def block(found: re.Match[str]) -> str:
            name = found["name"]
            return f"<!-- begin: {name} -->\n\n{_text(root, name)}\n\n<!-- end: {name} -->"

        return _BLOCK.sub(block, self.file.read_text("utf-8"))

    def render(self) -> list[Path]:
        """Write the text and draw the curves of every folder with logs; return the files written.

        Raises:
            OSError, ValueError: see :meth:`rendered`; nothing is written then.
        """
        text = self.rendered()
        written = [self.file]
        for name in self.folders:
            folder = self.file.parent / name
            if rows := _logs(folder):
                _save(draw_bands(rows), folder / CURVES)
                written.append(folder / CURVES)
        self.file.write_text(text, "utf-8")
        return written


def _text(root: Path, name: str) -> str:
    folder = root / name
    parts = []
    if (folder / PLAN).is_file():
        parts.append(comparison(read_study(folder)))
    if results := read_results(folder):
        parts.append(markdown(results, mixed=True))
    if (folder / QUALITIES).is_file():
        parts.append(TranslatorComparison.read(folder / QUALITIES).markdown())
    if _logs(folder):
        parts.append(f"![Training curves]({name}/{CURVES})\n\n{_CAPTION}")
    if not parts:
        raise ValueError(f"{folder}: expected a collected study or run, an exported model with results, or {QUALITIES}")
    return "\n\n".join(part.strip() for part in parts)


def _logs(folder: Path) -> dict[str, list[Log]]:
    """The logs of a study by row, or those of a run under its name."""
    if (folder / PLAN).is_file():
        return {row: [log for run in row_runs(folder, row) for log in _logs_of(run)] for row in read_study(folder)}
    logs = list(_logs_of(folder))
    return {folder.name: logs} if logs else {}


def _logs_of(run: Path) -> Iterator[Log]:
    return (read_log(run / name) for name in _LOGS if (run / name).is_file())


def _save(figure: Figure, path: Path) -> None:
    """Write SVG that is the same for the same numbers; letters stay letters."""
    with matplotlib.rc_context({"svg.hashsalt": "vireid", "svg.fonttype": "none"}):
        figure.savefig(path, metadata={"Date": None})
