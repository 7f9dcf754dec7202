"""The command that offers a server to assistants."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vireid import DEFAULT_URL
from vireid.cli.connection import Key, Url, connected
from vireid.cli.console import stop

__all__ = ["app"]

app = typer.Typer()


@app.command("mcp")
def serve_assistants(
    images: Annotated[
        Path | None, typer.Option(exists=True, file_okay=False, help="Folder of crops that assistants may search with.")
    ] = None,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Let an assistant read galleries and search them (MCP).

    What the tools return, personal data included, goes to the assistant and to the operator of its model. Use a key
    with the scope search, limited to galleries. The protocol (MCP) runs over the standard input and output.
    """
    try:
        from vireid.cli.mcp_server import make_server
    except ModuleNotFoundError as error:
        stop(f"{error.name} is not installed: vireid mcp needs vireid[mcp]", 2)
    with connected(url, key) as client:
        client.limits()  # a wrong address or key is an error before the assistant connects
        make_server(client, images).run()
