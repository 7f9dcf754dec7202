"""The commands that look after galleries and API keys."""

from __future__ import annotations

from itertools import islice
from typing import Annotated

import typer
from rich.text import Text

from vireid.client import DEFAULT_URL, Item, ItemFilter, Modality, Scope
from vireid.terminal import Key, Url, connected, err, out, table

__all__ = ["Name", "galleries", "keys"]

galleries = typer.Typer(no_args_is_help=True, help="List, create, show, clean and delete galleries.")
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
    half: Annotated[bool, typer.Option("--half", help="Keep vectors as float16: half the memory.")] = False,
    thumbnails: Annotated[bool, typer.Option(help="Keep a small picture of each crop.")] = True,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Create a gallery."""
    with connected(url, key) as client:
        made = client.create_gallery(
            name,
            model=model,
            retention_days=retention_days,
            description=description,
            vector_type="float16" if half else "float32",
            thumbnails=thumbnails,
        )
    out.print(f"{made.name} is created, bound to {made.model}")


@galleries.command("show")
def show_gallery(name: Name, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """Show a gallery as JSON."""
    with connected(url, key) as client:
        typer.echo(client.gallery(name).model_dump_json(indent=2))


@galleries.command("duplicates")
def show_duplicates(
    name: Name,
    min_score: Annotated[float, typer.Option(min=-1, max=1, help="Least cosine of a pair.")] = 0.98,
    modality: Annotated[Modality | None, typer.Option(help="Only pairs of this modality.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Pairs to show.")] = 100,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Show pairs of items that are nearly the same. Every item is compared with every other, which takes a while."""
    with connected(url, key) as client, err.status("comparing …"):
        pairs = list(islice(client.duplicates(name, min_score=min_score, modality=modality), limit + 1))
    shown = table("score", "identical", "id", "identity", "camera", "id", "identity", "camera")
    for pair in pairs[:limit]:
        shown.add_row(f"{pair.score:.4f}", "yes" if pair.identical else "", *_seen(pair.a), *_seen(pair.b))
    out.print(shown)
    if len(pairs) > limit:
        out.print(f"These are the first {limit:,}; --limit shows more.")


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


@galleries.command("erase")
def erase_items(
    name: Name,
    identity: Annotated[list[str] | None, typer.Option(help="Of this person; may be repeated.")] = None,
    camera: Annotated[list[str] | None, typer.Option(help="Of this camera; may be repeated.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Delete all items of a person or a camera, for good, and print the receipt as JSON."""
    where = ItemFilter(identity=tuple(identity or ()), camera=tuple(camera or ()))
    if where == ItemFilter():
        raise typer.BadParameter("or --camera is needed", param_hint="--identity")
    with connected(url, key) as client:
        if not yes:
            typer.confirm(f"Delete these items of {name}, for good?", abort=True)
        receipt = client.erase(name, where)
    typer.echo(receipt.model_dump_json(indent=2))
    if not receipt.complete:
        err.print("something is left, see above: erase again, and look at /readyz")
        raise typer.Exit(1)


@galleries.command("aliases")
def list_aliases(url: Url = DEFAULT_URL, key: Key = None) -> None:
    """List the aliases."""
    shown = table("alias", "gallery")
    with connected(url, key) as client:
        for alias, gallery in client.aliases().items():
            shown.add_row(alias, gallery)
    out.print(shown)


@galleries.command("alias")
def set_alias(
    alias: Annotated[str, typer.Argument(metavar="ALIAS", help="The other name.")],
    name: Name,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Have an alias stand for a gallery, from now on if it stood for another."""
    with connected(url, key) as client:
        client.set_alias(alias, name)
    out.print(f"{alias} stands for {name}")


@galleries.command("unalias")
def remove_alias(
    alias: Annotated[str, typer.Argument(metavar="ALIAS", help="The other name.")],
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Take an alias away; the gallery stays."""
    with connected(url, key) as client:
        client.remove_alias(alias)
    out.print(f"{alias} stands for nothing any more")


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


def _seen(item: Item) -> tuple[Text, Text, Text]:
    return Text(item.id), Text(item.identity or ""), Text(item.camera or "")
