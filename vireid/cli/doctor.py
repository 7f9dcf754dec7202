"""The command that checks this machine, its settings, models and data."""

from __future__ import annotations

import typer

from vireid.cli.console import print_table, status

__all__ = ["app"]

app = typer.Typer()


@app.command()
def doctor() -> None:
    """Check settings, models and data; say how to fix them."""
    from rich.text import Text

    from vireid.cli.doctor_checks import Status, run_checks

    colours = {Status.OK: "green", Status.WARN: "yellow", Status.FAIL: "red"}
    with status("checking …"):
        checks = list(run_checks())
    rows = [(Text(check.status, colours[check.status]), check.name, check.found, check.advice) for check in checks]
    print_table(("", "check", "found", "what to do"), rows)
    if any(check.status is Status.FAIL for check in checks):
        raise typer.Exit(1)
