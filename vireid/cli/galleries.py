"""The commands that manage galleries and their aliases."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vireid import DEFAULT_URL
from vireid.cli.connection import GalleryArgument, Key, Url, Yes, connected
from vireid.cli.console import print_table, status

if TYPE_CHECKING:
    from vireid.client import DuplicatePair, GalleryDetails

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Create, list, save, clean and delete galleries.")

PairModality = Annotated[Literal["visible", "infrared"] | None, typer.Option(help="Only pairs of this modality.")]
Alias = Annotated[str, typer.Argument(metavar="ALIAS", help="The other name.")]


@app.command("list")
def list_galleries(url: Url = DEFAULT_URL, key: Key = None) -> None:
    """List the galleries."""
    with connected(url, key) as client:
        print_table(("name", "items", "model", "retention", "description"), _gallery_rows(client.galleries()))


@app.command("create")
def create_gallery(
    name: GalleryArgument,
    model: Annotated[str | None, typer.Option(help="Model that embeds its items; without: the default.")] = None,
    retention_days: Annotated[int | None, typer.Option(min=1, help="Days after which items are deleted.")] = None,
    description: Annotated[str | None, typer.Option(help="Purpose of the gallery.")] = None,
    half: Annotated[bool, typer.Option("--half", help="Store vectors as float16, in half the memory.")] = False,
    thumbnails: Annotated[bool, typer.Option(help="Keep a small image of each crop.")] = True,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Create a gallery."""
    with connected(url, key) as client:
        created = client.create_gallery(
            name,
            model=model,
            retention_days=retention_days,
            description=description,
            vector_type="float16" if half else "float32",
            thumbnails=thumbnails,
        )
    typer.echo(f"{created.name} is created, with the model {created.model}")


@app.command("show")
def show_gallery(name: GalleryArgument, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """Show a gallery as JSON."""
    with connected(url, key) as client:
        typer.echo(client.gallery(name).model_dump_json(indent=2))


@app.command("duplicates")
def list_duplicates(
    name: GalleryArgument,
    min_score: Annotated[float, typer.Option(min=-1, max=1, help="Lowest score of a pair.")] = 0.98,
    modality: PairModality = None,
    limit: Annotated[int, typer.Option(min=1, help="Maximum number of pairs.")] = 100,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """List pairs of items that are nearly the same.

    Every item is compared with every other, which takes a while.
    """
    from vireid.client import Filter

    with connected(url, key) as client, status("comparing …"):
        pairs = list(islice(client.duplicates(name, Filter(modality=modality), min_score=min_score), limit + 1))
    columns = ("score", "identical", "id", "identity", "camera", "id", "identity", "camera")
    print_table(columns, _duplicate_rows(pairs[:limit]))
    if len(pairs) > limit:
        typer.echo(f"These are the first {limit:,}; --limit shows more.")


@app.command("delete")
def delete_gallery(name: GalleryArgument, yes: Yes = False, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """Delete a gallery with all its items, permanently."""
    with connected(url, key) as client:
        if not yes:
            typer.confirm(f"Delete {name} with {client.gallery(name).items:,} items, permanently?", abort=True)
        client.delete_gallery(name)
    typer.echo(f"{name} is deleted")


@app.command("erase")
def erase_items(
    name: GalleryArgument,
    identity: Annotated[list[str] | None, typer.Option(help="Items of this identity; repeatable.")] = None,
    camera: Annotated[list[str] | None, typer.Option(help="Items of this camera; repeatable.")] = None,
    yes: Yes = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Delete all items of an identity or a camera, permanently.

    The receipt is printed as JSON.
    """
    from vireid.client import Filter

    if not (identity or camera):
        raise typer.BadParameter("give --identity or --camera", param_hint="--identity")
    where = Filter(identities=identity, cameras=camera)
    with connected(url, key) as client:
        if not yes:
            typer.confirm(f"Delete these items of {name}, permanently?", abort=True)
        receipt = client.erase(name, where)
    typer.echo(receipt.model_dump_json(indent=2))
    if not receipt.complete:
        typer.echo('data remains, see "left" above: erase again, and look at /readyz', err=True)
        raise typer.Exit(1)


@app.command("aliases")
def list_aliases(url: Url = DEFAULT_URL, key: Key = None) -> None:
    """List the aliases."""
    with connected(url, key) as client:
        print_table(("alias", "gallery"), client.aliases().items())


@app.command("alias")
def set_alias(alias: Alias, name: GalleryArgument, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """Make an alias name a gallery, even if it named another before."""
    with connected(url, key) as client:
        client.set_alias(alias, name)
    typer.echo(f"{alias} now names {name}")


@app.command("unalias")
def remove_alias(alias: Alias, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """Remove an alias; the gallery stays."""
    with connected(url, key) as client:
        client.remove_alias(alias)
    typer.echo(f"{alias} is removed")


def _gallery_rows(galleries: Iterable[GalleryDetails]) -> Iterator[Sequence[str]]:
    for gallery in galleries:
        days = "" if gallery.retention_days is None else f"{gallery.retention_days} days"
        yield gallery.name, f"{gallery.items:,}", gallery.model, days, gallery.description or ""


def _duplicate_rows(pairs: Iterable[DuplicatePair]) -> Iterator[Sequence[str]]:
    for pair in pairs:
        labels = [label for item in (pair.a, pair.b) for label in (item.id, item.identity or "", item.camera or "")]
        yield f"{pair.score:.4f}", "yes" if pair.identical else "", *labels
