"""A signal that reading continues, for the process that waits for the next entry."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["on_progress", "report_progress"]

_listeners: list[Callable[[], None]] = []


def report_progress() -> None:
    """Tell the listener, if there is one, that reading continues."""
    for listener in _listeners:
        listener()


def on_progress(listener: Callable[[], None]) -> None:
    """Have ``listener`` called, often, from now on; in place of the present one."""
    _listeners[:] = [listener]
