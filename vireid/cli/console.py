"""Output that the commands share: tables, warnings, and one line instead of a traceback."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, NoReturn, TypeVar

import typer

if TYPE_CHECKING:
    from pydantic import BaseModel
    from rich.text import Text

__all__ = [
    "TRAINING",
    "hint",
    "one_line_errors",
    "parse_choices",
    "print_json",
    "print_json_list",
    "print_table",
    "status",
    "stop",
    "typed_command",
    "warn",
]

Choice = TypeVar("Choice", bound=StrEnum)

TRAINING = "Training"
"""Section of the help for the commands that need the extra ``training``."""


def stop(message: str, code: int) -> NoReturn:
    """End the command with one line on the standard error."""
    typer.secho(f"error: {message}", err=True, fg="red")
    raise typer.Exit(code)


def warn(message: str) -> None:
    """Print a warning to the standard error."""
    typer.secho(f"warning: {message}", err=True, fg="yellow")


def hint(text: str) -> None:
    """Print what may be done next to the standard error, where a person reads it."""
    if sys.stderr.isatty():
        typer.secho(f"next: {text}", err=True, fg="cyan")


def print_json(answer: BaseModel) -> None:
    """Print an answer of the server as JSON."""
    typer.echo(answer.model_dump_json(indent=2))


def print_json_list(name: str, entries: Iterable[BaseModel]) -> None:
    """Print the entries of all pages as one page of the API, entry by entry."""
    typer.echo(f'{{"{name}": [', nl=False)
    for number, entry in enumerate(entries):
        typer.echo(("," if number else "") + "\n" + entry.model_dump_json(), nl=False)
    typer.echo('\n], "next_cursor": null}')


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]], *, copied: Sequence[str] = ()) -> None:
    """Print rows below a header. Long cells are folded, never cut; those of ``copied`` columns stay on one line."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column in copied)
    for row in rows:
        table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))
    Console().print(table)


def status(text: str) -> AbstractContextManager[object]:
    """Return a context that shows ``text`` beside a spinner on a terminal."""
    from rich.console import Console

    return Console(stderr=True).status(text)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """End the command with one line and exit code 2 for errors that its input or the machine causes."""
    try:
        yield
    except typer.Exit:  # a RuntimeError, but not an error
        raise
    except ImportError as error:
        stop(f"{error.name} is not installed: training commands need vireid[training]", 2)
    except (OSError, ValueError, RuntimeError) as error:
        stop(str(error), 2)


def parse_choices(option: str, choices: type[Choice], values: Iterable[str] | None) -> list[Choice]:
    """Return the values of a repeatable option as members of an enumeration.

    Raises:
        typer.BadParameter: a value is not a member.
    """
    try:
        return [choices(value) for value in values or ()]
    except ValueError as error:
        raise typer.BadParameter(f"{error}: expected {', '.join(choices)}", param_hint=option) from None


def typed_command() -> str:
    """Return the command line as it was typed, quoted for a shell; results keep it."""
    return shlex.join(["vireid", *sys.argv[1:]])
