"""What commands share: options, tables, and one line instead of a traceback."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from vireid.client import ApiError, Client, ClientError

__all__ = ["Key", "Light", "Url", "connected", "err", "naming", "out", "stop", "table"]

out = Console()
err = Console(stderr=True)

# Not VIREID_URL and VIREID_KEY: the server refuses names with its prefix that are none of its settings.
Url = Annotated[str, typer.Option(envvar="VIREIDCLI_URL", help="Where the server is.")]
Key = Annotated[str | None, typer.Option(envvar="VIREIDCLI_KEY", help="API key, where the server needs one.")]
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
