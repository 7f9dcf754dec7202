"""What commands share: options, tables, and one line instead of a traceback."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from vireid.client import ApiError, Client, ClientError

__all__ = [
    "Gallery",
    "Key",
    "Light",
    "Url",
    "connected",
    "counting",
    "err",
    "naming",
    "out",
    "require_gallery",
    "stop",
    "table",
]

_NOT_FOUND = 404

out = Console()
err = Console(stderr=True)

# Not VIREID_URL and VIREID_KEY: the server refuses names with its prefix that are none of its settings.
Url = Annotated[str, typer.Option(envvar="VIREIDCLI_URL", help="Where the server is.")]
Key = Annotated[str | None, typer.Option(envvar="VIREIDCLI_KEY", help="API key, where the server needs one.")]
Gallery = Annotated[str, typer.Option("--gallery", "-g", help="Name of the gallery.")]
Light = Annotated[
    Literal["visible", "infrared", "auto"], typer.Option(help="What light made the crops; auto: told from the pixels.")
]


@contextmanager
def connected(url: str, key: str | None, *, retries: int = 5) -> Iterator[Client]:
    """A client; what goes wrong with it ends the command with one line."""
    try:
        with Client(url, key, retries=retries) as client:
            yield client
    except ClientError as error:
        stop(str(error), 1)


@contextmanager
def naming(images: Sequence[Path]) -> Iterator[None]:
    """Print the files that an error of the server counts, with what is wrong with each."""
    try:
        yield
    except ApiError as error:
        for position, reason in sorted(error.by_position.items()):
            err.print(f"{images[position]}: {reason}", markup=False, soft_wrap=True)
        raise


def require_gallery(client: Client, name: str, create: bool) -> None:
    """See that there is such a gallery, making it if it is missing and may be made."""
    try:
        client.gallery(name)
    except ApiError as error:
        if error.status != _NOT_FOUND or not create:
            raise
        client.create_gallery(name)


class _Rate(ProgressColumn):
    """Things in a second."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f} {self._unit}/s" if task.speed else "")


def counting(unit: str) -> Progress:
    """A progress bar that counts things: how many of how many, how fast, how long still."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(unit), TimeRemainingColumn())
    return Progress(*columns, console=err)


def stop(message: str, code: int) -> NoReturn:
    """End the command with one line."""
    err.print(f"error: {message}", markup=False, soft_wrap=True, style="red")
    raise typer.Exit(code)


def table(*columns: str) -> Table:
    """A plain table that cuts nothing off."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(column, overflow="fold")
    return made
