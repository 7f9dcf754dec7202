"""The command that says where start weights come from and whether they are there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vireid.cli.console import TRAINING, one_line_errors, print_table

__all__ = ["app"]

app = typer.Typer()


@app.command(rich_help_panel=TRAINING)
def weights(
    folder: Annotated[Path, typer.Argument(help="Folder with the files.")] = Path("weights"),
) -> None:
    """List start weights and check the files of a folder.

    The exit code is 1 if a file in the folder is not the one it should be.
    """
    with one_line_errors():
        from models.start_weights import START_WEIGHTS, StartWeights

        typer.echo(
            f"Publisher: {StartWeights.publisher}, licence {StartWeights.licence}. Training data: "
            f"{StartWeights.training_data}.\nDownload NAME.xml and NAME.bin (FP16; 0287: FP32) by name from the model "
            f"zoo's repository or with its downloader into {folder}/, then run this command again."
        )
        print_table(
            ("name", "backbone", "use", f"in {folder}"),
            [(entry.name, entry.backbone, entry.remark, entry.state(folder)) for entry in START_WEIGHTS],
            copied=("name",),
        )
        typer.echo("\nsha256 of the files:")
        for entry in START_WEIGHTS:
            for file, checksum in entry.files(folder).items():
                typer.echo(f"{checksum}  {file.name}")
        if any("differs" in entry.state(folder) for entry in START_WEIGHTS):
            raise typer.Exit(1)
