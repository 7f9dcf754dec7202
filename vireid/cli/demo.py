"""The command that shows a search with drawn people."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vireid.cli.connection import Key, connected
from vireid.cli.console import print_table, status
from vireid.cli.local_server import run_in_background

__all__ = ["app"]

app = typer.Typer()


@app.command()
def demo(
    people: Annotated[int, typer.Option(min=2, max=200, help="Number of people to draw.")] = 24,
    image: Annotated[
        Path, typer.Option("--out", dir_okay=False, help="PNG file to write: queries with their hits.")
    ] = Path("vireid-demo.png"),
    keep: Annotated[bool, typer.Option("--keep", help="Keep gallery and server, to go on in the browser.")] = False,
    url: Annotated[str | None, typer.Option(help="A running server to use instead of a temporary one.")] = None,
    key: Key = None,
) -> None:
    """Search among drawn people: visible queries, infrared items.

    Drawings show how the parts work together, not how well the model knows people.
    """
    import tempfile
    from contextlib import nullcontext

    from vireid.cli import demo_search

    with (
        tempfile.TemporaryDirectory(prefix="vireid-demo-") as folder,
        nullcontext(url) if url else run_in_background(Path(folder)) as address,
        connected(address, key) as client,
    ):
        with status(f"drawing, indexing and searching {people} people …"):
            result = demo_search.run(client, people, keep=keep)
        print_table(*demo_search.table(result))
        typer.echo(result.summary)
        typer.echo(demo_search.CAUTION)
        demo_search.draw(result).save(image, "PNG")
        typer.echo(f"Image of these queries and hits: {image}")
        if not keep:
            typer.echo("The gallery is deleted again; --keep keeps it, to go on in the browser.")
            return
        typer.echo(f"Open {address}/ in a browser and choose the gallery {result.gallery}.")
        if url is None:
            crops = demo_search.write_queries(result, Path(folder) / "crops")
            _wait_for_interrupt(crops)


def _wait_for_interrupt(crops: Path) -> None:
    import threading
    from contextlib import suppress

    typer.echo(f"Query crops to drop on the page: {crops}\nCtrl-C stops the server and deletes its files.")
    with suppress(KeyboardInterrupt):
        threading.Event().wait()
