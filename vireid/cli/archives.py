"""The commands that save a gallery to a file, restore it, and embed it with another model."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Annotated

import typer

from vireid import DEFAULT_URL
from vireid.cli.connection import AsJson, GalleryArgument, Key, Url, connected
from vireid.cli.console import stop
from vireid.cli.imports import read_blocks
from vireid.cli.jobs import follow

__all__ = ["app"]

app = typer.Typer()


@app.command("snapshot")
def save_snapshot(
    name: GalleryArgument,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The tar archive to write; it must not exist yet.")],
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Save a gallery with all its items as one file.

    The file holds biometric data: protect it like the server.
    """
    from vireid.cli.progress import transfer_progress

    if file.exists():
        stop(f"{file} exists already: choose another name or delete it", 2)
    with _new_file(file) as body, connected(url, key) as client, transfer_progress("receiving", None) as counted:
        body.writelines(counted(client.snapshot(name)))
    typer.echo(f"{file} holds {name}")


@app.command("restore")
def restore_gallery(
    name: GalleryArgument,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file that `vireid gallery snapshot` has written.")],
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Create a gallery from a snapshot."""
    from vireid.cli.progress import transfer_progress

    try:
        with connected(url, key) as client:
            with transfer_progress("sending", file.stat().st_size) as counted:
                job = client.restore(name, counted(read_blocks(file)))
            follow(client, job, as_json=as_json)
    except OSError as error:
        stop(str(error), 1)


@app.command("reembed")
def reembed_gallery(
    name: GalleryArgument,
    model: Annotated[str, typer.Option(help="Name of the new model.")],
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Embed every item with another model, from its thumbnail.

    Searches switch to the new embeddings all at once, at the end.
    """
    with connected(url, key) as client:
        follow(client, client.reembed(name, model), as_json=as_json)


@contextmanager
def _new_file(file: Path) -> Iterator[IO[bytes]]:
    """Yield a new file that only its owner may read; it gets its name when the block ends without an error."""
    unfinished = file.with_name(f"{file.name}.part")
    try:
        with open(unfinished, "xb", opener=partial(os.open, mode=0o600)) as body:
            try:
                yield body
            except BaseException:
                unfinished.unlink()
                raise
        unfinished.rename(file)
    except OSError as error:
        stop(str(error), 1)
