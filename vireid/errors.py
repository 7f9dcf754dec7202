"""What a person sees of an error that a command meets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console

__all__ = ["clear_errors"]


@contextmanager
def clear_errors() -> Iterator[None]:
    """Say what is wrong in one line: what a user can cause is no reason for a traceback."""
    try:
        yield
    except typer.Exit:  # a RuntimeError too, but the command has said what there is to say
        raise
    except ImportError as error:
        message = f"{error.name} is missing: install vireid with the extra 'training'"
    except (OSError, ValueError, RuntimeError) as error:
        message = str(error)
    else:
        return
    Console(stderr=True).print(f"error: {message}", style="red", highlight=False, soft_wrap=True)
    raise typer.Exit(2)
