"""The commands that keep results in a repository and render a report of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vireid.cli.console import one_line_errors

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Collect results and render reports.")


@app.command()
def collect(
    source: Annotated[Path, typer.Argument(help="The --out folder of `vireid ablate` or `vireid train`.")],
    out: Annotated[Path, typer.Option(help="Folder to copy results and logs to, for instance results/methods.")],
) -> None:
    """Copy the results and logs of a study or a run, without weights."""
    with one_line_errors():
        from training.experiments.study import collect

        written = collect(source, out)
        size = sum(path.stat().st_size for path in written)
        typer.echo(f"{out}: {len(written)} files, {size / 1000:.0f} kB")


@app.command()
def render(
    report: Annotated[
        Path, typer.Argument(help="Markdown file with <!-- begin: FOLDER --> … <!-- end: FOLDER -->.")
    ] = Path("results/report/README.md"),
) -> None:
    """Generate the tables and charts of a report.

    Their data are the results and logs in the folders that the report names.
    """
    with one_line_errors():
        from training.experiments.report import Report

        for path in Report(report).render():
            typer.echo(path)
