"""The commands that list, show, change, erase and delete items, and show receipts of erasures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vireid import DEFAULT_URL
from vireid.cli.connection import AsJson, GalleryOption, Key, Url, Yes, connected
from vireid.cli.console import print_json, print_json_list, print_table
from vireid.cli.filters import FilterValues, to_filter, with_filter

if TYPE_CHECKING:
    from vireid.client import ItemSummary

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="List, show, change and delete items.")

ItemArgument = Annotated[str, typer.Argument(metavar="ID", help="Id of the item.")]
Clear = Annotated[
    list[str] | None,
    typer.Option("--clear", metavar="<identity|camera|captured_at|attributes>", help="Clear a value; repeatable."),
]


@app.command("list")
@with_filter
def list_items(
    gallery: GalleryOption,
    where: FilterValues,
    limit: Annotated[int, typer.Option(min=1, help="Maximum number of items.")] = 100,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """List the items of a gallery that pass a filter."""
    chosen = to_filter(where)
    with connected(url, key) as client:
        found = islice(client.items(gallery, chosen), limit)
        if as_json:
            print_json_list("items", found)
            return
        shown = list(found)
        print_table(("id", "identity", "camera", "captured", "modality", "warnings"), _rows(shown), copied=("id",))
        if len(shown) == limit:
            total = client.count_items(gallery, chosen)
            typer.echo(f"{limit:,} of {total:,} items; --limit shows more", err=True)


@app.command("show")
def show_item(item: ItemArgument, gallery: GalleryOption, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """Show an item as JSON."""
    with connected(url, key) as client:
        print_json(client.item(gallery, item))


@app.command("change")
def change_item(
    item: ItemArgument,
    gallery: GalleryOption,
    identity: Annotated[str | None, typer.Option(help="The person of the item.")] = None,
    camera: Annotated[str | None, typer.Option(help="The camera of the item.")] = None,
    captured_at: Annotated[
        datetime | None,
        typer.Option(metavar="TIME", parser=datetime.fromisoformat, help="With its offset: 2026-11-21T08:30:00Z."),
    ] = None,
    clear: Clear = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Change the metadata of an item; image and embedding stay."""
    changes: dict[str, Any] = {"identity": identity, "camera": camera, "captured_at": captured_at}
    changes = {name: value for name, value in changes.items() if value is not None}
    changes |= {name: {} if name == "attributes" else None for name in clear or ()}
    if not changes:
        raise typer.BadParameter("give a new value or --clear", param_hint="--identity")
    with connected(url, key) as client:
        changed = client.update_item(gallery, item, **changes)
    if as_json:
        print_json(changed)
    else:
        typer.echo(f"{item} is changed: {', '.join(changes)}")


@app.command("image")
def save_image(
    item: ItemArgument,
    gallery: GalleryOption,
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write: JPEG, or WebP of earlier versions.")],
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Save the thumbnail of an item."""
    with connected(url, key) as client:
        output.write_bytes(client.image(gallery, item))
    typer.echo(f"{output} holds the thumbnail of {item}")


@app.command("delete")
def delete_item(
    item: ItemArgument, gallery: GalleryOption, yes: Yes = False, url: Url = DEFAULT_URL, key: Key = None
) -> None:
    """Delete an item with its embedding, permanently."""
    with connected(url, key) as client:
        client.item(gallery, item)  # a wrong id is an error before the question
        if not yes:
            typer.confirm(f"Delete {item} of {gallery}, permanently?", abort=True)
        client.delete_item(gallery, item)
    typer.echo(f"{item} is deleted")


@app.command("receipts")
def list_receipts(
    receipt: Annotated[str | None, typer.Argument(metavar="ID", help="Id of a receipt; without: list all.")] = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """List the receipts of erasures, or show one as JSON."""
    with connected(url, key) as client:
        if receipt is not None:
            print_json(client.receipt(receipt))
        elif as_json:
            print_json_list("receipts", client.receipts())
        else:
            rows = ((r.id, r.gallery, f"{r.at:%Y-%m-%d %H:%M:%S}", f"{r.items:,}") for r in client.receipts())
            print_table(("id", "gallery", "time", "items"), rows, copied=("id",))


def _rows(items: Iterable[ItemSummary]) -> Iterator[Sequence[str]]:
    for item in items:
        captured = "" if item.captured_at is None else f"{item.captured_at:%Y-%m-%d %H:%M:%S}"
        yield item.id, item.identity or "", item.camera or "", captured, item.modality, ", ".join(item.warnings)
