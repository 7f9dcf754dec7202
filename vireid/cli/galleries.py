"""The commands that manage galleries and their aliases."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from vireid import DEFAULT_URL
from vireid.cli.connection import AsJson, GalleryArgument, Key, Url, Yes, connected
from vireid.cli.console import hint, print_json, print_json_list, print_table, status, stop
from vireid.cli.filters import FilterValues, to_filter, with_filter

if TYPE_CHECKING:
    from vireid.client import DuplicatePair, GalleryDetails, GalleryUpdate

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Create, list, save, clean and delete galleries.")

Alias = Annotated[str, typer.Argument(metavar="ALIAS", help="The other name.")]


@app.command("list")
def list_galleries(as_json: AsJson = False, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """List the galleries."""
    with connected(url, key) as client:
        if as_json:
            print_json_list("galleries", client.galleries())
            return
        print_table(("name", "items", "model", "retention", "description"), _gallery_rows(client.galleries()))


@app.command("create")
def create_gallery(
    name: GalleryArgument,
    model: Annotated[str | None, typer.Option(help="Model that embeds its items; without: the default.")] = None,
    retention_days: Annotated[int | None, typer.Option(min=1, help="Days after which items are deleted.")] = None,
    description: Annotated[str | None, typer.Option(help="Purpose of the gallery.")] = None,
    half: Annotated[bool, typer.Option("--half", help="Store vectors as float16, in half the memory.")] = False,
    thumbnails: Annotated[bool, typer.Option(help="Keep a small image of each crop.")] = True,
    as_json: AsJson = False,
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
    if as_json:
        print_json(created)
        return
    typer.echo(f"{created.name} is created, with the model {created.model}")
    hint(f"vireid index FOLDER -g {created.name}")


@app.command("change")
def change_gallery(
    name: GalleryArgument,
    retention_days: Annotated[
        int | None, typer.Option(min=0, help="Days after which items are deleted; 0: never.")
    ] = None,
    description: Annotated[str | None, typer.Option(help="Purpose of the gallery.")] = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Change the retention or the description of a gallery."""
    changes: GalleryUpdate = {}
    if retention_days is not None:
        changes["retention_days"] = retention_days or None
    if description is not None:
        changes["description"] = description or None
    if not changes:
        raise typer.BadParameter("give --retention-days or --description", param_hint="--retention-days")
    with connected(url, key) as client:
        changed = client.update_gallery(name, **changes)
    if as_json:
        print_json(changed)
    else:
        typer.echo(f"{changed.name} is changed")


@app.command("show")
def show_gallery(name: GalleryArgument, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """Show a gallery as JSON."""
    with connected(url, key) as client:
        print_json(client.gallery(name))


@app.command("summary")
def show_summary(name: GalleryArgument, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """Show what a gallery holds as JSON."""
    with connected(url, key) as client:
        print_json(client.summary(name))


@app.command("duplicates")
@with_filter
def list_duplicates(
    name: GalleryArgument,
    where: FilterValues,
    min_score: Annotated[float, typer.Option(min=-1, max=1, help="Lowest score of a pair.")] = 0.98,
    limit: Annotated[int, typer.Option(min=1, help="Maximum number of pairs.")] = 100,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """List pairs of items that are nearly the same.

    Every item is compared with every other, which takes a while.
    """
    chosen = to_filter(where)
    with connected(url, key) as client, status("comparing …"):
        pairs = list(islice(client.duplicates(name, chosen, min_score=min_score), limit + 1))
    if as_json:
        print_json_list("pairs", pairs[:limit])
        return
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
@with_filter
def erase_items(
    name: GalleryArgument, where: FilterValues, yes: Yes = False, url: Url = DEFAULT_URL, key: Key = None
) -> None:
    """Delete all items that pass a filter, permanently.

    The receipt is printed as JSON. It is an error where no item passes.
    """
    if not where:
        raise typer.BadParameter("give at least one option that selects items", param_hint="--identity")
    chosen = to_filter(where)
    with connected(url, key) as client:
        count = client.count_items(name, chosen)
        if not count:
            stop(f"no item of {name} passes this filter; nothing was deleted", 1)
        if not yes:
            typer.confirm(f"Delete {count:,} items of {name}, permanently?", abort=True, err=True)
        receipt = client.erase(name, chosen)
    print_json(receipt)
    if not receipt.complete:
        typer.echo('data remains, see "left" above: erase again, and look at /readyz', err=True)
        raise typer.Exit(1)


@app.command("aliases")
def list_aliases(as_json: AsJson = False, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """List the aliases."""
    from vireid.schemas.aliases import Alias, AliasesList

    with connected(url, key) as client:
        found = client.aliases()
    if as_json:
        print_json(AliasesList(aliases=[Alias(alias=name, gallery=gallery) for name, gallery in found.items()]))
    else:
        print_table(("alias", "gallery"), found.items())


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
