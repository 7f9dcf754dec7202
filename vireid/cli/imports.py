"""The command that uploads an archive, a folder or vectors for the server to import."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vireid import DEFAULT_URL
from vireid.cli.connection import (
    AsJson,
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
from vireid.cli.console import hint, print_json, stop
from vireid.cli.entry_report import print_ignored, require_nothing_hidden
from vireid.cli.jobs import follow

if TYPE_CHECKING:
    from vireid.client import ImportKind, JobStatus
    from vireid.client.crop_folder import CropFolder

__all__ = ["app", "read_blocks"]

_BLOCK = 2**18

app = typer.Typer()

Source = Annotated[
    Path, typer.Argument(metavar="SOURCE", help="Folder of crops, or a .tar, .tar.gz, .zip, .ndjson or .parquet file.")
]
Pattern = Annotated[
    str | None,
    typer.Option(
        help="RE2 expression, searched for in each crop's path; its named groups (identity, camera, captured_at, id, "
        "modality) become the fields of the item."
    ),
]
Fingerprint = Annotated[str | None, typer.Option(help="Fingerprint of the model that made the vectors of SOURCE.")]
OnServer = Annotated[
    bool, typer.Option("--on-server", help="SOURCE is a folder on the server's machine, below an import root.")
]
Timezone = Annotated[
    str | None,
    typer.Option(help="Time zone of times that state none, such as Europe/Berlin or +02:00; without: refused."),
]
Wait = Annotated[bool, typer.Option(help="Wait until the import has ended, and report it.")]


@app.command("import")
def import_source(
    source: Source,
    gallery: GalleryOption,
    modality: ModalityOption = "auto",
    pattern: Pattern = None,
    fingerprint: Fingerprint = None,
    on_conflict: ConflictOption = "fail",
    timezone: Timezone = None,
    follow_links: FollowLinks = False,
    on_server: OnServer = False,
    create: Create = True,
    wait: Wait = True,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Upload crops or vectors for the server to import.

    The import continues even if the server is restarted. A manifest.csv or manifest.jsonl among the crops gives the
    fields of each (path, id, identity, modality, camera, captured_at, attributes). Run the same command again after an
    interruption: items that are there already are skipped.
    """
    from vireid.client.crop_folder import count_reasons

    folder = None if on_server else _folder(source, follow_links=follow_links)
    with connected(url, key) as client:
        require_gallery(client, gallery, create)
        if on_server:
            job = client.import_directory(
                gallery, str(source), modality=modality, pattern=pattern, on_conflict=on_conflict, timezone=timezone,
                follow_links=follow_links,
            )  # fmt: skip
        else:
            send = partial(
                client.import_file, gallery, modality=modality, pattern=pattern, fingerprint=fingerprint,
                on_conflict=on_conflict, timezone=timezone,
            )  # fmt: skip
            job = _send(send, source, folder)
        if wait:
            follow(client, job, as_json=as_json)
            hint(f"vireid search CROP -g {gallery}")
        elif as_json:
            print_json(job)
        else:
            typer.echo(f"{job.id} is {job.state}; vireid jobs {job.id} follows it")
    if folder is not None:
        require_nothing_hidden(count_reasons(folder.ignored))


def _folder(source: Path, *, follow_links: bool) -> CropFolder | None:
    """Return what is to be sent of a folder, and print what is not; None for an archive."""
    from vireid.client import import_kind
    from vireid.client.crop_folder import count_reasons, find_crops

    try:
        if not source.is_dir():
            if follow_links:
                stop("--follow-links is for a folder", 2)
            import_kind(source)
            source.stat()
            return None
    except (OSError, ValueError) as error:
        stop(str(error), 2)
    folder = find_crops(source, follow_links=follow_links)
    print_ignored(count_reasons(folder.ignored))
    if not folder.crops:
        stop(f"there is no image below {source}", 1)
    return folder


def _send(
    send: Callable[[Iterable[bytes], ImportKind], JobStatus], source: Path, folder: CropFolder | None
) -> JobStatus:
    """Send a folder as one tar stream, or an archive as it is."""
    from vireid.cli.progress import transfer_progress
    from vireid.client import import_kind
    from vireid.client.tar_stream import tar_size, tar_stream

    try:
        files = [] if folder is None else folder.manifests + folder.crops
        size = tar_size(source, files) if files else source.stat().st_size
        with transfer_progress("sending", size) as counted:
            if files:
                return send(counted(tar_stream(source, files)), "tar")
            return send(counted(read_blocks(source)), import_kind(source))
    except OSError as error:
        stop(str(error), 1)


def read_blocks(file: Path) -> Iterator[bytes]:
    """Yield the content of a file, block by block."""
    with file.open("rb") as body:
        while block := body.read(_BLOCK):
            yield block
