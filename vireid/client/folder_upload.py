"""Upload of a folder of crops: in batches, several requests at a time."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from models.crop_files import id_of, relative_path
from vireid.client.client import Client
from vireid.client.errors import ApiError
from vireid.client.payloads import AnyModality, batches
from vireid.schemas.fields import ModalityChoice
from vireid.schemas.items import ItemFields, WriteResult

__all__ = ["Labels", "Outcome", "upload"]

_TOO_LARGE = 413


@dataclass(frozen=True, slots=True)
class Labels:
    """Metadata of the crops: one modality for all; camera and identity from the path below the folder.

    A pattern is searched for in the path; the label is its first group, or the whole match if it has no group.
    """

    modality: AnyModality = ModalityChoice.AUTO
    camera: re.Pattern[str] | None = None
    identity: re.Pattern[str] | None = None

    def of(self, path: str) -> ItemFields:
        """Return the metadata of the crop at ``path``, relative to the folder, with the id that an import gives it.

        It is not validated here: the server reports each item that it refuses.

        Raises:
            InvalidPath: the path cannot be that of a crop.
        """
        path = relative_path(path)
        return ItemFields.model_construct(
            id=id_of(path),
            modality=ModalityChoice(self.modality),
            camera=_found(self.camera, path),
            identity=_found(self.identity, path),
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """Result for a file; ``reason`` says why it failed."""

    path: Path
    status: Literal["added", "updated", "failed"]
    reason: str | None = None


def upload(
    client: Client, gallery: str, files: Sequence[tuple[Path, ItemFields]], *, parallel: int
) -> Iterator[list[Outcome]]:
    """Add files to a gallery, ``parallel`` requests at a time; yield the outcomes of each request.

    Closing the iterator early lets the running requests finish and starts no more.

    Raises:
        ClientError: an error that affects more than single files: no answer, a missing gallery, a full disk.
    """
    limits = client.limits()
    requests = batches(limits, files, lambda file: _size(file[0]), limits.max_images)
    pool = ThreadPoolExecutor(parallel, thread_name_prefix="upload")
    try:
        running = [pool.submit(_add, client, gallery, batch) for batch in requests]
        for done in as_completed(running):
            yield done.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _add(client: Client, gallery: str, files: Sequence[tuple[Path, ItemFields]]) -> list[Outcome]:
    outcomes, readable = [], []
    for path, fields in files:
        try:
            readable.append((path, path.read_bytes(), fields))
        except OSError as error:
            outcomes.append(Outcome(path, "failed", error.strerror or type(error).__name__))
    try:
        written = client.add_items(gallery, [(content, fields) for _, content, fields in readable])
    except ApiError as error:
        if error.status != _TOO_LARGE:
            raise
        if len(readable) == 1:
            return [*outcomes, Outcome(readable[0][0], "failed", error.problem.detail)]
        # a proxy accepts smaller requests than the server
        half = len(files) // 2
        return _add(client, gallery, files[:half]) + _add(client, gallery, files[half:])
    return outcomes + [_outcome(path, result) for (path, _, _), result in zip(readable, written, strict=True)]


def _outcome(path: Path, result: WriteResult) -> Outcome:
    return Outcome(path, result.status, result.error.detail if result.error else None)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # reported when it is read
        return 0


def _found(pattern: re.Pattern[str] | None, path: str) -> str | None:
    match = pattern.search(path) if pattern else None
    return None if match is None else match[1] if match.re.groups else match[0]
