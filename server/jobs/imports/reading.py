"""What the reader process does for an import of images: survey the upload, then send its files one by one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.crop_files import is_manifest
from server.domain.errors import ArchiveRejected, ServiceError
from server.jobs.imports.archive_entries import Entry, Position, Source
from server.jobs.imports.manifest import Manifest, ManifestRow
from server.jobs.report import ReasonCounts

__all__ = ["FileFailed", "FileRead", "Survey", "read_images"]


@dataclass(frozen=True, slots=True)
class Survey:
    """What is in the upload: so many files to import, rows of the manifest without a file, and what is ignored."""

    files: int
    unused_rows: list[ManifestRow]
    ignored: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class FileRead:
    """A file, and the row of the manifest that names it."""

    path: str
    position: Position
    data: bytes
    row: ManifestRow | None

    @property
    def size(self) -> int:
        """Bytes of the content."""
        return len(self.data)


@dataclass(frozen=True, slots=True)
class FileFailed:
    """A file that cannot be imported."""

    path: str
    position: Position
    error: ServiceError


def read_images(
    source: Source, manifest_file: Path, after: Position | None, max_bytes: int
) -> Iterator[Survey | FileRead | FileFailed]:
    """Yield the survey, and then every file behind position ``after``.

    ``manifest_file`` keeps the rows of the manifest while this runs.

    Raises:
        ArchiveRejected: the upload cannot be used, or not to its end.
    """
    with closing(Manifest(manifest_file)) as manifest:
        yield _survey(source, manifest)
        for entry in source.entries(after):
            if not _holds_manifest(entry):
                yield _read(entry, manifest, max_bytes)


def _survey(source: Source, manifest: Manifest) -> Survey:
    """Go through the upload without reading its files: find it sound, count, read the manifest."""
    files, ignored = 0, ReasonCounts()
    for entry in source.entries(ignored=ignored):
        if _holds_manifest(entry):
            with entry.open() as file:
                manifest.read(entry.path, file)
        else:
            files += 1
    if manifest.name is None:
        return Survey(files, [], ignored.to_json())
    for entry in source.entries():
        manifest.use(entry.path)
    manifest.match_case()
    for column in manifest.unknown_columns:
        ignored.add(f"unknown column of {manifest.name.rpartition('/')[2]}", column)
    return Survey(files, manifest.unused(), ignored.to_json())


def _read(entry: Entry, manifest: Manifest, max_bytes: int) -> FileRead | FileFailed:
    try:
        return FileRead(entry.path, entry.position, entry.read(max_bytes), manifest.row(entry.path))
    except ArchiveRejected:
        raise
    except ServiceError as error:
        return FileFailed(entry.path, entry.position, error)


def _holds_manifest(entry: Entry) -> bool:
    return entry.fault is None and is_manifest(entry.path)
