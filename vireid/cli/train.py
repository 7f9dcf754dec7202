"""The commands that train networks: one, or all rows of a plan."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from vireid.cli.console import TRAINING, one_line_errors, typed_command
from vireid.cli.data_options import CACHE, Cache

__all__ = ["app"]

app = typer.Typer()

Config = Annotated[
    str,
    typer.Argument(
        help="A YAML file, or METHOD/NAME of a configuration that comes with vireid (baseline/light, "
        "baseline/sysu_mm01, …)."
    ),
]
Plan = Annotated[
    str,
    typer.Argument(
        help="A YAML file, or the name of a plan that comes with vireid: mtrl, icre, emi (the parts of a method), "
        "methods, longer or zoo (methods compared)."
    ),
]
Overrides = Annotated[list[str], typer.Option("--set", help="KEY=VALUE that replaces a value of the file; repeatable.")]


@app.command(rich_help_panel=TRAINING)
def train(
    config: Config,
    out: Annotated[Path, typer.Option(help="Folder of the run: checkpoint, logs, network.")],
    overrides: Overrides = [],  # noqa: B006
    resume: Annotated[bool, typer.Option(help="Continue the run in OUT where it stopped.")] = False,
    cache: Cache = CACHE,
) -> None:
    """Train a network; --resume continues after an interruption."""
    with one_line_errors():
        from training.config import find_config, read_config
        from training.trainer import train as run_training

        settings = read_config(find_config(config), overrides)
        network = run_training(settings, out, resume=resume, cache=cache, command=typed_command())
        typer.echo(f"trained network: {network}")


@app.command(rich_help_panel=TRAINING)
def ablate(
    plan: Plan,
    out: Annotated[Path, typer.Option(help="Folder for the runs and table.md; finished runs in it are kept.")],
    seeds: Annotated[str, typer.Option(help="Comma-separated seeds; every row is trained with each.")] = "0",
    row: Annotated[list[str], typer.Option(help="Train only the row of this name; repeatable.")] = [],  # noqa: B006
    overrides: Overrides = [],  # noqa: B006
    cache: Cache = CACHE,
) -> None:
    """Train and evaluate the variations of a plan.

    Run the same command again after an interruption: it continues where it stopped.
    """
    with one_line_errors():
        from rich.console import Console

        from training.config import find_config
        from training.experiments.ablation import ablate as run_plan
        from training.experiments.study import read_plan

        if not re.fullmatch(r"\d+(,\d+)*", seeds):
            raise ValueError(f"--seeds {seeds}: expected numbers separated by commas, for instance 0,1,2")
        path = Path(plan) if Path(plan).is_file() else find_config(f"{plan}/ablation")
        table = run_plan(
            read_plan(path),
            out,
            seeds=list(dict.fromkeys(map(int, seeds.split(",")))),
            only=row,
            overrides=overrides,
            cache=cache,
            command=typed_command(),
            console=Console(stderr=True),
        )
        typer.echo(table, nl=False)
