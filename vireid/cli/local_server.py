"""A server on this machine: its settings, with errors in one line, and one that runs in the background."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vireid.cli.console import stop

if TYPE_CHECKING:
    from pydantic import ValidationError

    from server.settings import Settings

_LOOPBACK = {"127.0.0.1", "localhost"}

__all__ = ["read_settings", "require_server", "run_in_background", "setting_errors"]


@contextmanager
def require_server() -> Iterator[None]:
    """End the command with one line where an import shows that the server is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        stop(f"{error.name} is not installed: the server needs vireid[cpu] or vireid[gpu]", 2)


def read_settings(**overrides: Any) -> Settings:
    """Read the settings from the environment; ``overrides`` that are not None replace them."""
    with require_server():
        from pydantic import ValidationError

        from server.settings import Settings
    try:
        return Settings(**{name: value for name, value in overrides.items() if value is not None})
    except ValidationError as error:
        stop("; ".join(setting_errors(error)), 2)


def setting_errors(error: ValidationError) -> list[str]:
    """Return one line for each invalid setting, with the name of its variable."""
    from server.settings import PREFIX

    return [
        "".join(f"{PREFIX}{name}: ".upper() for name in entry["loc"][:1]) + entry["msg"].removeprefix("Value error, ")
        for entry in error.errors()
    ]


@contextmanager
def run_in_background(folder: Path, url: str) -> Iterator[str]:
    """Run a server with its data in ``folder`` at the loopback address ``url``, and yield its address."""
    import logging
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    if parts.hostname not in _LOOPBACK:
        stop(f"no server answers at {url}, and one can be started on this machine only: leave out --url", 1)

    with require_server():
        from server.runner import START_ERRORS, in_background
    logging.basicConfig(level=logging.ERROR)
    settings = read_settings(data_dir=folder / "data", host="127.0.0.1", port=parts.port or 80, auth="off")
    try:
        with in_background(settings) as url:
            yield url
    except START_ERRORS as error:
        stop(f"the server cannot start: {error or type(error).__name__}", 2)
