"""The command that shows a search with drawn people."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vireid import DEFAULT_URL
from vireid.cli.connection import Key, Url, connected
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
    folder: Annotated[
        Path, typer.Option(file_okay=False, help="Folder to write: the drawn crops, in day and night.")
    ] = Path("vireid-demo"),
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep gallery and server, and open the page of the server.")
    ] = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Search among drawn people: visible queries, infrared items.

    Drawings show how the parts work together, not how well the model knows people. Where no server answers at --url,
    one with temporary data runs for the time of the demo.
    """
    import tempfile
    from contextlib import nullcontext

    from vireid.cli import demo_search

    running = _answers(url, key)
    with (
        tempfile.TemporaryDirectory(prefix="vireid-demo-") as data,
        nullcontext(url) if running else run_in_background(Path(data), url) as address,
        connected(address, key) as client,
    ):
        with status(f"drawing, indexing and searching {people} people …"):
            result = demo_search.run(client, people, keep=keep)
        print_table(*demo_search.table(result))
        typer.echo(result.summary)
        typer.echo(demo_search.CAUTION)
        demo_search.draw(result).save(image, "PNG")
        demo_search.write_folders(result, folder)
        typer.echo(f"Image of these queries and hits: {image}; the crops: {folder}/day and {folder}/night")
        if not keep:
            typer.echo("The gallery is deleted again; --keep keeps it, to continue in the browser.")
            return
        typer.echo(f"Open {address}/ in a browser and choose the gallery {result.gallery}.")
        _open_page(f"{address}/")
        if not running:
            _wait_for_interrupt(folder)


def _answers(url: str, key: str | None) -> bool:
    """Return whether a server answers at an address, ready or not."""
    from vireid.client import ApiError, Client, Unreachable

    try:
        with Client(url, key, timeout=5, retries=0) as client:
            client.ready()
    except Unreachable:
        return False
    except ApiError:
        return True
    return True


def _open_page(address: str) -> None:
    import sys
    import webbrowser

    if sys.stdout.isatty():
        webbrowser.open(address)


def _wait_for_interrupt(folder: Path) -> None:
    import threading
    from contextlib import suppress

    typer.echo(f"cd {folder}; vireid index night --gallery yard --modality infrared")
    typer.echo("Crops of day are queries to drop on the page. Ctrl-C stops the server and deletes its data.")
    with suppress(KeyboardInterrupt):
        threading.Event().wait()
