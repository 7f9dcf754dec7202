"""The commands that check and prepare training data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vireid.cli.console import one_line_errors, print_table

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Check and prepare training data.")


@app.command()
def check(
    path: Annotated[Path, typer.Argument(help="SYSU-MM01, RegDB, LLCM, a folder of crops or a manifest.")],
    kind: Annotated[str | None, typer.Option(help="Kind of the data set; without: detected.")] = None,
) -> None:
    """Compare a data set on disk with what it should contain.

    Where they differ, the first difference is printed and the exit code is 1.
    """
    with one_line_errors():
        from rich.text import Text

        from training.data.check import check as check_data

        report = check_data(path, kind)
        typer.echo(f"{report.kind} in {report.root}")
        rows = [
            [
                Text(cell, "" if count.ok else "red")
                for cell in (count.what, "" if count.expected is None else f"{count.expected:,}", f"{count.found:,}")
            ]
            for count in report.counts
        ]
        print_table(("", "expected", "found"), rows)
        for warning in report.warnings():
            typer.secho(f"warning: {warning}", fg="yellow")
        for problem in report.problems():
            typer.secho(problem, fg="red")
        if not report.ok:
            raise typer.Exit(1)


@app.command()
def windows(
    frames: Annotated[Path, typer.Argument(help="Folder with aligned frames of equal name in visible/ and infrared/.")],
    out: Annotated[Path, typer.Argument(help="Folder to write crops to, one subfolder for each place.")],
    per_frame: Annotated[int, typer.Option(min=0, help="Places drawn in a frame; 0 with --people.")] = 3,
    crops: Annotated[int, typer.Option(min=1, help="Crops of a place in each modality.")] = 3,
    people: Annotated[bool, typer.Option(help="Also cut every person that FRAMES/label marks (MSRS).")] = False,
    margin: Annotated[float, typer.Option(min=0, help="Added to a person's box, as a share of its height.")] = 0.0,
    jitter: Annotated[float, typer.Option(min=0, help="Largest shift of a crop, as a share of its window.")] = 0.08,
    fold: Annotated[int | None, typer.Option(min=0, help="Only the frames of this fold of --folds.")] = None,
    folds: Annotated[int, typer.Option(min=2, help="Folds that frames are divided into, by name.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Another seed gives other windows.")] = 0,
) -> None:
    """Cut person-shaped windows out of aligned frames.

    They are real pairs for training where no identities exist.
    """
    with one_line_errors():
        from training.data.frame_folds import fold_of
        from training.data.person_crops import Windows, cut_windows

        drawn = Windows(per_frame=per_frame, crops=crops, people=people, margin=margin, jitter=jitter)
        places = cut_windows(frames, out, drawn, seed, lambda name: fold is None or fold_of(name, folds) == fold)
        typer.echo(f"{places} places in {out}")
