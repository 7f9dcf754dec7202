"""Bulk imports and re-embedding."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from vireid.schemas.base import Schema
from vireid.schemas.fields import ModalityChoice

__all__ = ["ConflictChoice", "ImportDirectory", "ImportOptions", "ReembedRequest"]


class ConflictChoice(StrEnum):
    """What to do with an entry whose id another image or vector has: `fail` stops, `keep` stores both, `replace`."""

    FAIL = "fail"
    KEEP = "keep"
    REPLACE = "replace"


class ImportOptions(Schema):
    """Options of an import."""

    modality: ModalityChoice = Field(
        ModalityChoice.AUTO, description="Modality of images for which neither manifest nor pattern states one."
    )
    pattern: str | None = Field(
        None,
        max_length=1024,
        description="RE2 expression, searched for in the path of each image; its groups `id`, `identity`, `modality`, "
        "`camera` and `captured_at` set the item's metadata. An image whose path does not match fails.",
        examples=[r"(?P<identity>\d{4})_(?P<camera>c\d)"],
    )
    fingerprint: str | None = Field(
        None, description="Fingerprint of the model that made the embeddings; if given, it must be the gallery's."
    )
    on_conflict: ConflictChoice = Field(
        ConflictChoice.FAIL,
        description="What to do with an entry whose id belongs to another image or vector: `fail` stops the import "
        "there, `keep` stores both (the new one under its id and a mark of its content), `replace` overwrites.",
    )
    timezone: str | None = Field(
        None,
        max_length=64,
        description="Time zone of times that state none: an IANA name or an offset. Without it they are refused.",
        examples=["Europe/Berlin", "+02:00"],
    )


class ImportDirectory(Schema):
    """A directory of the server's machine to import."""

    directory: str = Field(
        min_length=1, max_length=4096, description="Absolute path, below one of the server's import roots."
    )
    pattern: str | None = Field(
        None, max_length=1024, description="As the query parameter, over which it takes precedence."
    )
    follow_links: bool = Field(
        False, description="Whether to follow links to files and directories below one of the server's import roots."
    )


class ReembedRequest(Schema):
    """The model to bind a gallery to."""

    model: str = Field(description="Name of a loaded model.")
