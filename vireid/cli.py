"""The command ``vireid``: the serving and the training commands. What a command needs is imported when it runs."""

from __future__ import annotations

import typer

from vireid import importing, learning, serving

__all__ = ["app", "main"]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Find the same person across visible and infrared cameras.",
)
app.add_typer(serving.app)
app.add_typer(importing.app)
app.add_typer(learning.app)


def main() -> None:
    """Run the command."""
    app()
