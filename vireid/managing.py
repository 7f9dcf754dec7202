"""The commands that look after galleries and API keys."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from vireid.client import DEFAULT_URL, Scope
from vireid.terminal import Key, Url, connected, err, out, table

__all__ = ["galleries", "keys"]

galleries = typer.Typer(no_args_is_help=True, help="List, create, show and delete galleries.")
keys = typer.Typer(no_args_is_help=True, help="List, create and delete API keys.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the gallery.")]


@galleries.command("list")
def list_galleries(url: Url = DEFAULT_URL, key: Key = None) -> None:
    """List the galleries."""
    shown = table("name", "items", "model", "retention", "description")
    with connected(url, key) as client:
        for gallery in client.galleries():
            days = "" if gallery.retention_days is None else f"{gallery.retention_days} days"
            shown.add_row(gallery.name, f"{gallery.items:,}", gallery.model, days, Text(gallery.description or ""))
    out.print(shown)


@galleries.command("create")
def create_gallery(
    name: Name,
    model: Annotated[str | None, typer.Option(help="Model it is bound to; the default one without.")] = None,
    retention_days: Annotated[int | None, typer.Option(min=1, help="Days after which items are deleted.")] = None,
    description: Annotated[str | None, typer.Option(help="What it is for.")] = None,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Create a gallery."""
    with connected(url, key) as client:
        made = client.create_gallery(name, model=model, retention_days=retention_days, description=description)
    out.print(f"{made.name} is created, bound to {made.model}")


@galleries.command("show")
def show_gallery(name: Name, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """Show a gallery as JSON."""
    with connected(url, key) as client:
        typer.echo(client.gallery(name).model_dump_json(indent=2))


@galleries.command("delete")
def delete_gallery(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Delete a gallery with all that it holds, for good."""
    with connected(url, key) as client:
        if not yes:
            typer.confirm(f"Delete {name} with {client.gallery(name).items:,} items, for good?", abort=True)
        client.delete_gallery(name)
    out.print(f"{name} is deleted")


@keys.command("list")
def list_keys(url: Url = DEFAULT_URL, key: Key = None) -> None:
    """List the API keys, without their secrets."""
    shown = table("id", "name", "scopes", "galleries", "created")
    with connected(url, key) as client:
        for found in client.api_keys():
            covered = "all" if found.galleries is None else ", ".join(found.galleries)
            scopes, created = ", ".join(found.scopes), f"{found.created_at:%Y-%m-%d %H:%M}"
            shown.add_row(found.id, Text(found.name), scopes, covered, created)
    out.print(shown)


@keys.command("create")
def create_key(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Who or what it is for.")],
    scope: Annotated[list[Scope], typer.Option(help="What it opens; may be repeated.")],
    gallery: Annotated[list[str] | None, typer.Option(help="Only this gallery; may be repeated.")] = None,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Create an API key. Its secret goes to the standard output, alone, and is never shown again."""
    with connected(url, key) as client:
        made = client.create_key(name, scope, gallery)
    err.print(f"{made.id} is created; its secret, shown this once:", soft_wrap=True)
    typer.echo(made.secret)


@keys.command("delete")
def delete_key(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="Id of the key.")],
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Delete an API key: it is refused from now on."""
    with connected(url, key) as client:
        client.delete_key(key_id)
    out.print(f"{key_id} is deleted")
