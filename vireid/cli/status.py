"""The command that shows whether a server is ready, and what it holds."""

from __future__ import annotations

from typing import Annotated

import typer

from vireid import DEFAULT_URL
from vireid.cli.connection import AsJson, Key, Url, connected
from vireid.cli.console import print_json, stop

__all__ = ["app"]

app = typer.Typer()


@app.command()
def status(
    metrics: Annotated[bool, typer.Option("--metrics", help="Print the metrics in the format of Prometheus.")] = False,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Show whether the server is ready, its models and galleries."""
    from vireid.client import ServerFailed

    with connected(url, key) as client:
        if metrics:
            typer.echo(client.metrics(), nl=False)
            return
        try:
            found = client.ready()
        except ServerFailed as error:
            stop(f"{url} is not ready: {error.problem.detail}", 1)
        if as_json:
            print_json(found)
            return
        typer.echo(f"{url} is ready, version {found.version}, {found.queue_depth} images waiting")
        for model in found.models:
            typer.echo(f"model {model.name}: {model.precision} on {model.provider}")
        galleries = list(client.galleries())
        items = sum(gallery.items for gallery in galleries)
        typer.echo(f"{len(galleries):,} galleries with {items:,} items: vireid gallery list")
