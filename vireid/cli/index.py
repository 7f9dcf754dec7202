"""The command that adds a folder of crops to a gallery."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vireid import DEFAULT_URL
from vireid.cli.connection import Create, GalleryOption, Key, ModalityOption, Url, connected, require_gallery
from vireid.cli.console import print_table, stop, warn

if TYPE_CHECKING:
    from vireid.client import Client, ItemFields
    from vireid.client.folder_upload import Labels, Outcome

    Files = list[tuple[Path, ItemFields]]

__all__ = ["app"]

_RETRIES = 100  # of each request: the server may be kept busy by others for as long as it takes

app = typer.Typer()

Folder = Annotated[
    Path, typer.Argument(metavar="DIR", exists=True, file_okay=False, help="Folder of crops, searched at any depth.")
]
CameraPattern = Annotated[
    str | None,
    typer.Option(help="Regular expression; its first group, searched for in the path below DIR, is the camera."),
]
IdentityPattern = Annotated[str | None, typer.Option(help="The same for the identity.")]
Replace = Annotated[bool, typer.Option("--replace", help="Send crops again that the gallery already has.")]
Parallel = Annotated[int, typer.Option(min=1, max=64, help="Number of requests at a time.")]


@app.command()
def index(
    folder: Folder,
    gallery: GalleryOption,
    modality: ModalityOption = "auto",
    camera_pattern: CameraPattern = None,
    identity_pattern: IdentityPattern = None,
    create: Create = True,
    replace: Replace = False,
    parallel: Parallel = 4,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Add a folder of crops to a gallery.

    Run the same command again after an interruption: it continues where it stopped. The id of an item is its path below
    DIR with colons for slashes.
    """
    from vireid.client.folder_upload import Labels, find_images

    labels = Labels(modality, _pattern(camera_pattern), _pattern(identity_pattern))
    paths = find_images(folder)
    if not paths:
        stop(f"there is no image below {folder}", 1)
    files = [(path, labels.of(path.relative_to(folder).as_posix())) for path in paths]
    _warn_of_missing_labels(labels, [fields for _, fields in files])
    with connected(url, key, retries=_RETRIES) as client:
        require_gallery(client, gallery, create)
        if not replace:
            known = {item.id for item in client.items(gallery)}
            files = [(path, fields) for path, fields in files if fields.id not in known]
        _upload(client, gallery, files, parallel=parallel, total=len(paths))


def _upload(client: Client, gallery: str, files: Files, *, parallel: int, total: int) -> None:
    """Send ``files`` and report them; the exit code is 1 where one failed. The rest of ``total`` is there already."""
    from vireid.cli.progress import count_progress
    from vireid.client.folder_upload import upload

    skipped = total - len(files)
    outcomes: list[Outcome] = []
    try:
        with count_progress("images") as progress:
            task = progress.add_task("indexing", total=total, completed=skipped)
            for done in upload(client, gallery, files, parallel=parallel):
                outcomes += done
                progress.advance(task, len(done))
    except KeyboardInterrupt:
        typer.echo("interrupted; run the same command again to continue", err=True)
        raise typer.Exit(130) from None
    finally:
        _report(gallery, outcomes, skipped)
    if any(outcome.status == "failed" for outcome in outcomes):
        raise typer.Exit(1)


def _report(gallery: str, outcomes: Sequence[Outcome], skipped: int) -> None:
    counts = Counter(outcome.status for outcome in outcomes)
    typer.echo(
        f"{gallery}: {counts['added']:,} added, {counts['updated']:,} replaced, {skipped:,} there already, "
        f"{counts['failed']:,} failed"
    )
    failed = sorted((o for o in outcomes if o.status == "failed"), key=lambda outcome: outcome.path)
    if failed:
        print_table(("failed file", "reason"), [(str(outcome.path), outcome.reason or "") for outcome in failed])


def _warn_of_missing_labels(labels: Labels, files: Sequence[ItemFields]) -> None:
    for name in ("camera", "identity"):
        pattern = getattr(labels, name)
        missing = sum(getattr(fields, name) is None for fields in files)
        if pattern and missing:
            warn(f"{pattern.pattern} finds no {name} in {missing:,} of {len(files):,} files")


def _pattern(text: str | None) -> re.Pattern[str] | None:
    try:
        return None if text is None else re.compile(text)
    except re.error as error:
        stop(f"{text} is not a regular expression: {error}", 2)
