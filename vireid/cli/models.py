"""The commands that show the models of a server."""

from __future__ import annotations

from typing import Annotated

import typer

from vireid import DEFAULT_URL
from vireid.cli.connection import AsJson, Key, Url, connected
from vireid.cli.console import print_json, print_table

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="List and show the models of the server.")


@app.command("list")
def list_models(as_json: AsJson = False, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """List the loaded models."""
    with connected(url, key) as client:
        found = client.models()
    if as_json:
        print_json(found)
        return
    rows = (
        (
            card.name,
            "yes" if card.name == found.default else "",
            card.method,
            str(card.dimension),
            card.fingerprint[:12],
        )
        for card in found.models
    )
    print_table(("name", "default", "method", "dimension", "fingerprint"), rows)


@app.command("show")
def show_model(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the model.")],
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Show the card of a model as JSON."""
    with connected(url, key) as client:
        print_json(client.model(name))
