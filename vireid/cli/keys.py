"""The commands that manage API keys."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from vireid import DEFAULT_URL
from vireid.cli.connection import AsJson, Key, Url, connected
from vireid.cli.console import parse_choices, print_json, print_json_list, print_table

if TYPE_CHECKING:
    from vireid.client import KeyDetails

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="List, create, rotate and delete API keys.")


ScopeOption = Annotated[
    list[str], typer.Option(metavar="<search|write|admin>", help="What the key allows; repeatable.")
]


_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


def _expiry(text: str | datetime) -> datetime:
    """Return the time that ``90d`` (also h, w), a date or a time with a time zone stands for."""
    if isinstance(text, datetime):
        return text
    if found := re.fullmatch(r"(\d{1,5})([hdw])", text):
        return datetime.now(UTC) + int(found[1]) * _UNITS[found[2]]
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"expected 90d, 12h, 4w, a date or 2027-01-31T12:00:00Z, found {text}") from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


ExpiryOption = Annotated[
    datetime | None,
    typer.Option(
        "--expires",
        parser=_expiry,
        metavar="WHEN",
        help="When the key expires: 90d, 12h, a date or a time in UTC.",
    ),
]


@app.command("list")
def list_keys(as_json: AsJson = False, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """List the API keys, without their secrets."""
    with connected(url, key) as client:
        if as_json:
            print_json_list("keys", client.api_keys())
            return
        print_table(("id", "name", "scopes", "galleries", "created", "expires", "last used"), _rows(client.api_keys()))


@app.command("create")
def create_key(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The person or program that will use it.")],
    scope: ScopeOption,
    gallery: Annotated[list[str] | None, typer.Option(help="Allow only this gallery; repeatable.")] = None,
    expires: ExpiryOption = None,
    requests_per_minute: Annotated[
        int | None, typer.Option(min=1, help="Limit of the key's requests per minute.")
    ] = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Create an API key.

    Only its secret goes to the standard output. The server never shows it again.
    """
    from vireid.client import Scope

    scopes = parse_choices("--scope", Scope, scope)
    with connected(url, key) as client:
        created = client.create_key(name, scopes, gallery, expires_at=expires, requests_per_minute=requests_per_minute)
    if as_json:
        print_json(created)
        return
    typer.echo(f"{created.id} is created; its secret, shown only this once:", err=True)
    typer.echo(created.secret)


@app.command("rotate")
def rotate_key(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="Id of the key.")],
    overlap_hours: Annotated[
        int, typer.Option(min=0, max=720, help="Hours for which the old secret is accepted too.")
    ] = 24,
    expires: ExpiryOption = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Give an API key a new secret.

    Only the new secret goes to the standard output. The server never shows it again.
    """
    with connected(url, key) as client:
        rotated = client.rotate_key(key_id, overlap_s=3600 * overlap_hours, expires_at=expires)
    if as_json:
        print_json(rotated)
        return
    typer.echo(f"{rotated.id} is rotated; its new secret, shown only this once:", err=True)
    typer.echo(rotated.secret)


@app.command("delete")
def delete_key(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="Id of the key.")],
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Delete an API key; the server refuses it from now on."""
    with connected(url, key) as client:
        client.delete_key(key_id)
    typer.echo(f"{key_id} is deleted")


def _rows(keys: Iterable[KeyDetails]) -> Iterator[Sequence[str]]:
    for found in keys:
        galleries = "all" if found.galleries is None else ", ".join(found.galleries)
        times = (found.created_at, found.expires_at, found.last_used_at)
        shown = ("never" if time is None else f"{time:%Y-%m-%d %H:%M}" for time in times)
        yield found.id, found.name, ", ".join(found.scopes), galleries or "none", *shown
