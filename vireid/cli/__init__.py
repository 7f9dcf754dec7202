"""The command ``vireid``.

Each module of this package holds one group of commands and imports what a command needs when the command runs, so that
``vireid --help`` starts fast: no pydantic, no HTTP client, no NumPy, no rich.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from vireid.cli import (
    archives,
    audit,
    calibrate,
    dataset,
    demo,
    doctor,
    evaluate,
    export,
    figures,
    galleries,
    imports,
    index,
    items,
    jobs,
    keys,
    mcp,
    models,
    results,
    search,
    serve,
    status,
    train,
    translation,
    weights,
)
from vireid.cli.console import TRAINING
from vireid.cli.examples import add_examples

__all__ = ["app", "main"]


class _SectionedGroup(TyperGroup):
    """A group whose help lists the commands by section, in the order in which they were added."""

    def format_commands(self, _ctx: Any, formatter: Any) -> None:
        commands: Mapping[str, TyperCommand | TyperGroup] = self.commands  # type: ignore[assignment]
        visible = [(name, command) for name, command in commands.items() if not command.hidden]
        limit = formatter.width - 6 - max(len(name) for name, _ in visible)
        for section, entries in groupby(visible, key=lambda entry: entry[1].rich_help_panel or "Commands"):
            with formatter.section(section):
                formatter.write_dl([(name, command.get_short_help_str(limit)) for name, command in entries])


app = typer.Typer(
    cls=_SectionedGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    epilog="Exit codes: 0 success; 1 the operation or one of its items failed; 2 invalid arguments, settings or input; "
    "130 interrupted.",
)


def _print_version(requested: bool) -> None:
    if requested:
        from importlib.metadata import version

        typer.echo(f"vireid {version('vireid')}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Find the same person across visible and infrared cameras."""


# In the order of use: first the server and what is done with it, then training.
app.add_typer(serve.app)
app.add_typer(demo.app)
app.add_typer(search.app)
app.add_typer(index.app)
app.add_typer(imports.app)
app.add_typer(calibrate.app)
galleries.app.add_typer(archives.app)
app.add_typer(galleries.app, name="gallery")
app.add_typer(items.app, name="items")
app.add_typer(models.app, name="models")
app.add_typer(keys.app, name="keys")
app.add_typer(audit.app, name="audit")
app.add_typer(jobs.app)
app.add_typer(status.app)
app.add_typer(mcp.app)
app.add_typer(doctor.app)

app.add_typer(weights.app)
app.add_typer(train.app)
app.add_typer(evaluate.app)
app.add_typer(export.app)
app.add_typer(figures.app)
app.add_typer(dataset.app, name="dataset", rich_help_panel=TRAINING)
app.add_typer(translation.app, name="translator", rich_help_panel=TRAINING)
app.add_typer(results.app, name="results", rich_help_panel=TRAINING)
add_examples(app)


def main() -> None:
    """Run the command."""
    app()
