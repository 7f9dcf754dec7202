"""The command that starts the server."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from vireid.cli.console import stop
from vireid.cli.local_server import read_settings, require_server

if TYPE_CHECKING:
    from server.runner import Host

__all__ = ["app"]

app = typer.Typer()


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on; replaces VIREID_HOST.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on, 0: any free one; replaces VIREID_PORT.")] = None,
) -> None:
    """Start the server. Its settings are environment variables with the prefix VIREID_."""
    import logging.config
    import signal
    import sys

    with require_server():
        from server.runner import START_ERRORS, Host, InferenceDied, log_config, logging_in_thread
    settings = read_settings(host=host, port=port)
    try:
        server = Host(settings)
        logging.config.dictConfig(log_config(human_readable=sys.stderr.isatty()))
        signal.signal(signal.SIGTERM, partial(_exit_on_signal, server))
        with logging_in_thread():
            server.run(lambda: typer.echo(f"vireid serves {server.url}/; Ctrl-C stops it"))
    except START_ERRORS as error:
        stop(f"the server cannot start: {error or type(error).__name__}", 2)
    except InferenceDied as error:
        stop(f"the server has stopped: {error}; its log has the reason. Start it again", 1)
    except KeyboardInterrupt:
        typer.echo("stopped", err=True)


def _exit_on_signal(server: Host, _signal: int, _frame: object) -> NoReturn:
    server.stop()  # Python ignores the exception where the garbage collector runs
    raise SystemExit(0)  # unwinds the stack, so that everything is closed
