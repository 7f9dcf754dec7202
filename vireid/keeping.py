"""The commands that save a gallery, restore it, and bind it to another model."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Annotated

import typer
from rich.progress import DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from vireid.client import DEFAULT_URL
from vireid.importing import blocks, follow, sending
from vireid.managing import Name
from vireid.terminal import Key, Url, connected, err, out, stop

__all__ = ["app"]

app = typer.Typer()


@app.command("snapshot")
def take_snapshot(
    name: Name,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The new file, a tar archive.")],
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Save a gallery with everything in it as one file, which holds biometric data: keep it as safe as the server."""
    if file.exists():
        stop(f"{file} exists already", 2)
    columns = (TextColumn("receiving"), DownloadColumn(), TransferSpeedColumn())
    with _new(file) as body, connected(url, key) as client, Progress(*columns, console=err) as progress:
        task = progress.add_task("receiving", total=None)
        for block in client.snapshot(name):
            body.write(block)
            progress.advance(task, len(block))
    out.print(f"{file} holds {name}", soft_wrap=True)


@app.command("restore")
def restore_gallery(
    name: Name,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What snapshot has saved.")],
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Make a new gallery from a snapshot."""
    try:
        with connected(url, key) as client:
            with sending(file.stat().st_size) as sent:
                job = client.restore(name, sent(blocks(file)))
            follow(client, job)
    except OSError as error:
        stop(str(error), 1)


@app.command("reembed")
def reembed_gallery(
    name: Name,
    model: Annotated[str, typer.Option(help="The model to bind it to.")],
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Embed every item anew with another model, from its thumbnail. Searches change over at once, at the end."""
    with connected(url, key) as client:
        follow(client, client.reembed(name, model))


@contextmanager
def _new(file: Path) -> Iterator[IO[bytes]]:
    """A new file that nobody else may read; it is there when the block has ended well."""
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
