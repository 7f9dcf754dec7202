"""What commands print of entries that failed or were ignored, grouped by reason."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING

import typer

from vireid.cli.console import print_table

if TYPE_CHECKING:
    from vireid.schemas.jobs import ReasonCount

__all__ = ["print_failures", "print_ignored", "require_nothing_hidden"]

_MAX_FAILURES = 50


def print_failures(failures: Iterable[tuple[str, str]], by_reason: Sequence[ReasonCount], rest: str) -> None:
    """Print the first failures with their reasons and, where there are more, all of them by reason.

    ``rest`` says where the others are found.
    """
    print_table(("failed", "reason"), islice(failures, _MAX_FAILURES))
    total = sum(one.count for one in by_reason)
    if total > _MAX_FAILURES:
        typer.echo(f"and {total - _MAX_FAILURES:,} more{rest}; in all:")
        _print_reasons("failed", by_reason)


def print_ignored(by_reason: Sequence[ReasonCount]) -> None:
    """Print how many files and folders were ignored for each reason, if any were."""
    if by_reason:
        _print_reasons("ignored", by_reason)


def require_nothing_hidden(by_reason: Sequence[ReasonCount]) -> None:
    """End the command with exit code 1 if something that may hold crops was ignored."""
    from models.crop_files import may_hide_crops

    if any(may_hide_crops(one.reason) for one in by_reason):
        raise typer.Exit(1)


def _print_reasons(title: str, by_reason: Sequence[ReasonCount]) -> None:
    rows = [(f"{one.count:,}", one.reason, ", ".join(one.examples)) for one in by_reason]
    print_table((title, "reason", "such as"), rows)
