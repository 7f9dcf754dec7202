"""A folder of crops into a gallery: in batches, several at once, leaving out what is there already."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vireid.client import ApiError, Client, ItemFields, ModalityChoice, Written

__all__ = ["SUFFIXES", "Labels", "Outcome", "find_images", "upload"]

SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".webp"})
"""Endings of the files that are taken, in lower case."""

_TOO_LARGE = 413


@dataclass(frozen=True, slots=True)
class Labels:
    """What is told of each crop: a modality for all; camera and identity found in the path below the folder.

    A pattern is searched for in the path; its first group counts, or the whole match where it has none.
    """

    modality: ModalityChoice = "auto"
    camera: re.Pattern[str] | None = None
    identity: re.Pattern[str] | None = None

    def of(self, path: str) -> ItemFields:
        """The fields of the crop at ``path``, which is relative and has forward slashes."""
        from server.jobs.imports.naming import id_of  # the same ids as in an import of the same folder

        return ItemFields(
            id=id_of(path),
            modality=self.modality,
            camera=_found(self.camera, path),
            identity=_found(self.identity, path),
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a file; ``reason`` says why it failed."""

    path: Path
    status: Literal["added", "updated", "failed"]
    reason: str | None = None


def find_images(folder: Path) -> list[Path]:
    """Every image file below ``folder``, sorted; what is hidden (its name begins with a dot) is passed over."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )


def upload(
    client: Client, gallery: str, files: Sequence[tuple[Path, ItemFields]], *, parallel: int
) -> Iterator[list[Outcome]]:
    """Add files to a gallery, ``parallel`` requests at a time; gives what became of them, request by request.

    Leaving the iterator early lets the requests under way finish and starts no more.

    Raises:
        ClientError: something that concerns more than single files: no answer, a missing gallery, a full disk.
    """
    limits = client.limits()
    batches = limits.batches(files, lambda file: _size(file[0]), limits.max_images)
    pool = ThreadPoolExecutor(parallel, thread_name_prefix="upload")
    try:
        running = [pool.submit(_add, client, gallery, batch) for batch in batches]
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
            return [*outcomes, Outcome(readable[0][0], "failed", error.problem.reason)]
        # Something before the server takes less than the server says.
        half = len(files) // 2
        return _add(client, gallery, files[:half]) + _add(client, gallery, files[half:])
    return outcomes + [_outcome(path, result) for (path, _, _), result in zip(readable, written, strict=True)]


def _outcome(path: Path, result: Written) -> Outcome:
    return Outcome(path, result.status, result.error.reason if result.error else None)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # told when it is read
        return 0


def _found(pattern: re.Pattern[str] | None, path: str) -> str | None:
    match = pattern.search(path) if pattern else None
    return None if match is None else match[1] if match.re.groups else match[0]
