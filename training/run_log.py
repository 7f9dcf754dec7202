"""Progress and logs of a run: a progress bar, CSV files and TensorBoard."""

from __future__ import annotations

import csv
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter

__all__ = ["CsvLog", "ProgressCallback", "RunLog", "show_progress"]

LINE_SECONDS = 30.0
"""Seconds between two progress lines without a terminal."""


class ProgressCallback(Protocol):
    """Function that is called with the number of completed items, their total and a text."""

    def __call__(self, done: int, total: int, text: str = "") -> None: ...


class CsvLog:
    """Rows of numbers by epoch in a CSV file. The first row determines the columns.

    Args:
        path: the file; it is created with the first row.
        epoch: rows of later epochs, written before an interruption, are removed.
    """

    def __init__(self, path: Path, epoch: int) -> None:
        self.path = path
        rows = [row for row in self._rows() if int(row["epoch"]) <= epoch]
        path.unlink(missing_ok=True)
        for row in rows:
            self.append(row)

    def append(self, row: Mapping[str, object]) -> None:
        """Append a row that has a column ``epoch``.

        Raises:
            ValueError: it has a column that is not in the first row.
        """
        new = not self.path.exists()
        columns = list(row) if new else self._columns()
        with self.path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns)
            if new:
                writer.writeheader()
            writer.writerow(row)

    def _columns(self) -> list[str]:
        with self.path.open(newline="", encoding="utf-8") as file:
            return next(csv.reader(file))

    def _rows(self) -> list[dict[str, str]]:
        if not self.path.exists():
            return []
        with self.path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))


class RunLog:
    """``training.csv``, ``validation.csv`` and ``tensorboard/`` in the folder of a run.

    Args:
        folder: folder of the run.
        epoch: entries of later epochs, written before an interruption, are removed.
    """

    def __init__(self, folder: Path, epoch: int) -> None:
        self._files = {name: CsvLog(folder / f"{name}.csv", epoch) for name in ("training", "validation")}
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=epoch + 1)

    def write(self, name: str, epoch: int, values: Mapping[str, float]) -> None:
        """Add the values of an epoch to ``training`` or ``validation``."""
        self._files[name].append({"epoch": epoch, **values})
        for key, value in values.items():
            self._board.add_scalar(f"{name}/{key}", value, epoch)
        self._board.flush()

    def close(self) -> None:
        """Close the files."""
        self._board.close()


@contextmanager
def show_progress(console: Console, title: str) -> Iterator[ProgressCallback]:
    """Show progress: a bar on a terminal, otherwise a line every 30 seconds and at the end."""
    last = time.monotonic()

    def line(done: int, total: int, text: str) -> None:
        nonlocal last
        if done == total or (not console.is_terminal and time.monotonic() - last >= LINE_SECONDS):
            console.print(f"{title}  {done}/{total}  {text}", highlight=False, soft_wrap=True)
            last = time.monotonic()

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    disabled = not console.is_terminal
    with Progress(
        *columns, TextColumn("{task.fields[text]}"), console=console, transient=True, disable=disabled
    ) as bar:
        task = bar.add_task(title, total=None, text="")

        def show(done: int, total: int, text: str = "") -> None:
            bar.update(task, completed=done, total=total, text=text)
            line(done, total, text)

        yield show
