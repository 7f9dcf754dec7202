"""The connection to a server, as the commands that need one share it: options, the client, its errors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vireid.cli.console import stop

if TYPE_CHECKING:
    from vireid.client import Client

__all__ = [
    "AsJson",
    "ConflictOption",
    "Create",
    "FollowLinks",
    "GalleryArgument",
    "GalleryOption",
    "Key",
    "ModalityChoice",
    "ModalityOption",
    "Url",
    "Yes",
    "connected",
    "print_image_errors",
    "require_gallery",
]

_NOT_FOUND = 404

# Not VIREID_URL and VIREID_KEY: the server refuses variables with its prefix that are not settings.
Url = Annotated[str, typer.Option(envvar="VIREIDCLI_URL", help="Address of the server.")]
Key = Annotated[str | None, typer.Option(envvar="VIREIDCLI_KEY", help="API key, if the server requires one.")]
GalleryArgument = Annotated[str, typer.Argument(metavar="NAME", help="Name of the gallery.")]
GalleryOption = Annotated[str, typer.Option("--gallery", "-g", help="Name of the gallery.")]
ModalityChoice = Literal["visible", "infrared", "auto"]
ModalityOption = Annotated[
    ModalityChoice, typer.Option(help="Modality of the crops; auto: decided from the pixels of each.")
]
ConflictOption = Annotated[
    Literal["fail", "keep", "replace"],
    typer.Option(
        "--on-conflict",
        help="What to do with a crop whose id belongs to another image: fail stops, keep stores both, replace "
        "overwrites the stored one.",
    ),
]
FollowLinks = Annotated[bool, typer.Option("--follow-links", help="Also read folders that are linked.")]
Create = Annotated[bool, typer.Option(help="Create the gallery if it does not exist.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the answer of the server as JSON.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]


@contextmanager
def connected(
    url: str, key: str | None, *, retries: int = 5, case_reference: str | None = None, reason: str | None = None
) -> Iterator[Client]:
    """Yield a client; an error of its calls ends the command with one line and exit code 1."""
    from vireid.client import Client, ClientError, Forbidden, Unauthorized, Unreachable

    try:
        with Client(url, key, retries=retries, case_reference=case_reference, reason=reason) as client:
            yield client
    except Unreachable as error:
        stop(f"{error}. Start a server with: vireid serve; or name another one by --url or VIREIDCLI_URL", 1)
    except Unauthorized as error:
        stop(f"{error}. Give a key by --key or VIREIDCLI_KEY; the first start of a server prints one", 1)
    except Forbidden as error:
        stop(f"{error}. Use another key, or create one with: vireid keys create", 1)
    except ClientError as error:
        stop(str(error), 1)


@contextmanager
def print_image_errors(images: Sequence[Path]) -> Iterator[None]:
    """Print the file and the reason for each image that an error of the server names by its position."""
    from vireid.client import ApiError

    try:
        yield
    except ApiError as error:
        for position, reason in sorted(error.by_position.items()):
            typer.echo(f"{images[position]}: {reason}", err=True)
        raise


def require_gallery(client: Client, name: str, create: bool) -> None:
    """Raise ``ApiError`` if there is no gallery of this name, or create it where ``create`` allows that."""
    from vireid.client import ApiError

    try:
        client.gallery(name)
    except ApiError as error:
        if error.status != _NOT_FOUND or not create:
            raise
        client.create_gallery(name)
