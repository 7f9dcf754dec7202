"""Progress bars. Imported by a command when it shows one, because rich takes a while to load."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

__all__ = ["count_progress", "transfer_progress"]


class _RateColumn(ProgressColumn):
    """Units per second."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f} {self._unit}/s" if task.speed else "")


def count_progress(unit: str) -> Progress:
    """Return a progress bar that counts ``unit``s: done of total, rate and time left."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _RateColumn(unit),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=Console(stderr=True))


@contextmanager
def transfer_progress(label: str, size: int | None) -> Iterator[Callable[[Iterable[bytes]], Iterator[bytes]]]:
    """Yield a function that passes blocks of bytes through and shows how many of ``size`` bytes have passed.

    A ``size`` of None is unknown.
    """
    known = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    columns = known if size is not None else (DownloadColumn(), TransferSpeedColumn())
    with Progress(TextColumn(label), *columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(label, total=size)

        def counted(blocks: Iterable[bytes]) -> Iterator[bytes]:
            for block in blocks:
                yield block
                progress.advance(task, len(block))

        yield counted
