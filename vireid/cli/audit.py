"""The commands that read and verify the audit log."""

from __future__ import annotations

from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from vireid import DEFAULT_URL
from vireid.cli.connection import AsJson, Key, Url, Yes, connected
from vireid.cli.console import print_json, print_json_list, print_table, stop

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="List, verify and export the audit log.")


@app.command("list")
def list_entries(
    limit: Annotated[int, typer.Option(min=1, help="Number of entries to print.")] = 50,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """List the newest entries of the audit log."""
    with connected(url, key) as client:
        if as_json:
            print_json_list("entries", islice(client.audit(), limit))
            return
        print_table(
            ("number", "time", "key", "action", "gallery", "case"),
            (
                (
                    str(entry.number),
                    f"{entry.at:%Y-%m-%d %H:%M:%S}",
                    entry.key_id or "",
                    entry.action,
                    entry.gallery or "",
                    entry.case_reference or "",
                )
                for entry in islice(client.audit(), limit)
            ),
        )


@app.command("verify")
def verify(
    noted: Annotated[
        str | None, typer.Option(metavar="NUMBER:DIGEST", help="Entry that an earlier verification has printed.")
    ] = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Verify the hash chain of the audit log.

    The last entry goes to the standard output; note it outside the server, and give it to --noted the next time.
    """
    number, _, digest = (noted or "").partition(":")
    if noted and not (number.isascii() and number.isdecimal() and digest):
        raise typer.BadParameter(f"expected NUMBER:DIGEST, found {noted}")
    with connected(url, key) as client:
        found = client.verify_audit(int(number), digest) if noted else client.verify_audit()
    if as_json:
        print_json(found)
    if found.problem is not None:
        stop(f"the audit log was changed: {found.problem}", 1)
    if as_json:
        return
    older = f"; {found.unchained} older entries are not in the chain" if found.unchained else ""
    typer.echo(f"{found.entries} entries are intact{older}", err=True)
    if found.last is not None:
        typer.echo(f"{found.last}:{found.digest}")


@app.command("export")
def export(
    output: Annotated[Path | None, typer.Option(help="File to write; default: the standard output.")] = None,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Write all entries as JSON lines, newest first."""
    with connected(url, key) as client, output.open("w") if output else nullcontext() as file:
        for entry in client.audit():
            typer.echo(entry.model_dump_json(), file=file)


@app.command("confirm-clock")
def confirm_clock(yes: Yes = False, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """Confirm the clock after a jump, so that retention runs again."""
    with connected(url, key) as client:
        status = client.retention()
        if not status.stopped:
            typer.echo("retention is running; there is nothing to confirm")
            return
        typer.echo(status.reason)
        if not yes:
            typer.confirm("Is the clock right?", abort=True)
        client.confirm_clock()
    typer.echo("the clock is confirmed; retention runs again")
