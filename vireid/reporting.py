"""The commands that keep results in a repository and make a report of them; imports wait until one of them runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from vireid.errors import clear_errors

__all__ = ["results"]

results = typer.Typer(
    no_args_is_help=True, help="Keep results without their weights, and make tables and plots of them."
)


@results.command()
def collect(
    source: Annotated[Path, typer.Argument(help="What `vireid ablate` or `vireid train` left in its --out.")],
    out: Annotated[Path, typer.Option(help="Folder to copy results and logs to, for instance results/methods.")],
) -> None:
    """Copy the results and logs of a study or a run, without weights."""
    with clear_errors():
        from training.study import collect

        written = collect(source, out)
        size = sum(path.stat().st_size for path in written)
        Console().print(f"{out}: {len(written)} files, {size / 1000:.0f} kB", highlight=False, soft_wrap=True)


@results.command()
def render(
    report: Annotated[Path, typer.Argument(help="Markdown with <!-- begin: FOLDER --> … <!-- end: FOLDER -->.")] = Path(
        "RESULTS.md"
    ),
) -> None:
    """Make the tables and plots of a report anew from the results and logs in the folders that it names."""
    with clear_errors():
        from training.reporting import Report

        for path in Report(report).render():
            Console().print(str(path), highlight=False, soft_wrap=True)
