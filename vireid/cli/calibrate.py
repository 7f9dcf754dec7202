"""The command that calibrates a gallery on its own items."""

from __future__ import annotations

from typing import Annotated

import typer

from vireid import DEFAULT_URL
from vireid.cli.connection import AsJson, GalleryArgument, Key, Url, connected
from vireid.cli.console import print_table
from vireid.cli.jobs import follow

__all__ = ["app"]

app = typer.Typer()


@app.command()
def calibrate(
    name: GalleryArgument,
    disjoint_cameras: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CAMERA,CAMERA...", help="Cameras of which no person passes two, separated by commas; repeatable."
        ),
    ] = None,
    simultaneous: Annotated[
        bool, typer.Option("--simultaneous", help="Items of one camera at the same time are of different people.")
    ] = False,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Measure false match rates on a gallery's own items.

    Without options, items with different identities are pairs of different people. Searches use the result.
    """
    lists = [cameras.split(",") for cameras in disjoint_cameras or ()]
    with connected(url, key) as client:
        job = client.calibrate(name, disjoint_cameras=lists, simultaneous=simultaneous)
        follow(client, job, as_json=as_json)
        if as_json:
            return
        found = client.calibrations(name)
    columns = ("query", "gallery", "pairs", "people", "score at 1%", "0.1%", "0.01%")
    newest = [one for one in found if one.version == found[0].version]
    scores = [["" if s is None else f"{s:.3f}" for s in one.thresholds.values()] for one in newest]
    rows = [
        (one.query, one.gallery, f"{one.impostor_pairs:,}", str(one.identities or "unknown"), *texts)
        for one, texts in zip(newest, scores, strict=True)
    ]
    print_table(columns, rows)
