"""The command that adds a folder of crops to a gallery."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vireid import DEFAULT_URL
from vireid.cli.connection import (
    ConflictOption,
    Create,
    FollowLinks,
    GalleryOption,
    Key,
    ModalityOption,
    Url,
    connected,
    require_gallery,
)
from vireid.cli.console import hint, stop, warn
from vireid.cli.entry_report import print_failures, print_ignored, require_nothing_hidden

if TYPE_CHECKING:
    from vireid.client import Client, ItemFields
    from vireid.client.crop_folder import CropFolder
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
Replace = Annotated[
    bool, typer.Option("--replace", help="Send crops again that the gallery already has, and overwrite.")
]
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
    on_conflict: ConflictOption = "fail",
    follow_links: FollowLinks = False,
    parallel: Parallel = 4,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Add a folder of crops to a gallery.

    Run the same command again after an interruption: it continues where it stopped. The id of an item is its path below
    DIR with colons for slashes.
    """
    from vireid.client.crop_folder import count_reasons, find_crops
    from vireid.client.folder_upload import Labels

    labels = Labels(modality, _pattern(camera_pattern), _pattern(identity_pattern))
    found = find_crops(folder, follow_links=follow_links)
    found.ignored += [(found.name(path), "manifest, which vireid import reads") for path in found.manifests]
    ignored = count_reasons(found.ignored)
    if not found.crops:
        print_ignored(ignored)
        stop(f"there is no image below {folder}", 1)
    files, failed = _labelled(found, labels)
    _warn_of_missing_labels(labels, [fields for _, fields in files])
    with connected(url, key, retries=_RETRIES) as client:
        require_gallery(client, gallery, create)
        if not replace:
            files = _without_known(client, gallery, folder, files, on_conflict)
        try:
            _upload(client, gallery, files, failed, parallel=parallel, total=len(found.crops))
        finally:
            print_ignored(ignored)
    require_nothing_hidden(ignored)
    hint(f"vireid search CROP -g {gallery}")


def _labelled(found: CropFolder, labels: Labels) -> tuple[Files, list[Outcome]]:
    from models.crop_files import InvalidPath
    from vireid.client.folder_upload import Outcome

    files: Files = []
    failed = []
    for path in found.crops:
        try:
            files.append((path, labels.of(found.name(path))))
        except InvalidPath as error:
            failed.append(Outcome(path, "failed", str(error)))
    return files, failed


def _without_known(client: Client, gallery: str, folder: Path, files: Files, on_conflict: str) -> Files:
    """Return the files that the gallery does not have, under ids that are free."""
    from vireid.client.conflicts import sift
    from vireid.schemas.imports import ConflictChoice

    stored = {item.id: item.content_sha256 for item in client.items(gallery)}
    sifted = sift(files, stored, ConflictChoice(on_conflict))
    if sifted.conflicts:
        path, id = sifted.conflicts[0]
        stop(
            f"{len(sifted.conflicts):,} of {len(files):,} crops have the id of another image, such as {path} "
            f"(item {id} of {gallery}). Nothing was sent: index a folder above {folder}, or choose --on-conflict "
            "keep, which stores both, or replace, which overwrites",
            1,
        )
    return sifted.new


def _upload(client: Client, gallery: str, files: Files, failed: list[Outcome], *, parallel: int, total: int) -> None:
    """Send ``files`` and report them; the exit code is 1 where one ``failed``. The rest of ``total`` is there."""
    from vireid.cli.progress import count_progress
    from vireid.client.folder_upload import upload

    skipped = total - len(files) - len(failed)
    outcomes = [*failed]
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
    from models.crop_files import display_name
    from vireid.client.crop_folder import count_reasons

    counts = Counter(outcome.status for outcome in outcomes)
    typer.echo(
        f"{gallery}: {counts['added']:,} added, {counts['updated']:,} replaced, {skipped:,} there already, "
        f"{counts['failed']:,} failed"
    )
    failed = sorted((o.path, o.reason or "") for o in outcomes if o.status == "failed")
    if failed:
        named = [(display_name(str(path)), reason) for path, reason in failed]
        print_failures(named, count_reasons(named), "")


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
