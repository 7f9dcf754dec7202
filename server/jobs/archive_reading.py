"""What the reader process does for a restore: check an archive of a gallery, then send its items part by part.

Nothing of the file is trusted: a checksum shows damage, not good will.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from hashlib import file_digest, sha256
from typing import IO, Any

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError

from server.domain.errors import ArchiveRejected
from server.domain.fields import UNIT_NORM_TOLERANCE, VectorMetadata
from server.domain.types import CropWarning, NewItem, Vectors
from server.embedding.decode import thumbnail_type
from server.gallery.archive import (
    CHECKSUMS,
    FORMAT_VERSION,
    MANIFEST,
    ArchivedGallery,
    ArchiveManifest,
    ArchivePart,
    schema,
)
from server.jobs.imports.archive_entries import Entry, may_be_hostile
from server.jobs.imports.tar import TarSource
from server.jobs.upload import Upload

__all__ = ["PartRead", "read_archive"]

_GROUP = 1000
"""Items that are sent together."""

_LARGEST_TEXT = 16 * 2**20
_LARGEST_PART = 2**30  # in memory; a real part has a twentieth of that
_LARGEST_THUMBNAIL = 2**20


@dataclass(frozen=True, slots=True)
class PartRead:
    """The items of a group; ``number`` counts parts, from 1, and is set with the last group of one."""

    items: list[NewItem]
    number: int | None = None
    size: int = 2**20  # is sent at once


class _ItemRow(VectorMetadata):
    """The columns of a row, except vector and thumbnail."""

    warnings: frozenset[CropWarning]
    content: str | None = Field(pattern=r"^[0-9a-f]{64}$")
    stored_at: datetime


_ROWS = TypeAdapter(list[_ItemRow])


def read_archive(body: Upload, after: int) -> Iterator[ArchiveManifest | PartRead]:
    """Yield the manifest, then the items of the parts behind the first ``after``, each of which has its checksum.

    Raises:
        ArchiveRejected: the file is damaged, cut off, or not an archive of a gallery.
    """
    source = TarSource(body, any_file=True)
    manifest, sums = _contents(source)
    yield manifest
    parts = {part.name: (number, part) for number, part in enumerate(manifest.parts, 1)}
    for entry in source.entries():
        number, part = parts.get(entry.path, (0, None))
        if part is not None and number > after:
            with may_be_hostile(partial(_damaged, part.name)):
                for items in _checked_items(entry, part, manifest.gallery, sums[part.name]):
                    yield PartRead(items)
            yield PartRead([], number)


def _checked_items(entry: Entry, part: ArchivePart, gallery: ArchivedGallery, checksum: str) -> Iterator[list[NewItem]]:
    with entry.open() as file, may_be_hostile(partial(_damaged, part.name)):
        if file_digest(file, "sha256").hexdigest() != checksum:  # type: ignore[arg-type]  # any readable will do
            raise ArchiveRejected(f"the snapshot is damaged: {part.name} is not what its checksum says")
        file.seek(0)
        yield from _items(file, part, gallery)


def _contents(source: TarSource) -> tuple[ArchiveManifest, dict[str, str]]:
    """The manifest, and the checksum of each member before the last, whose content is not looked at yet."""
    names: list[str] = []
    texts: dict[str, bytes] = {}
    for entry in source.entries():
        names.append(entry.path)
        if entry.path in (MANIFEST, CHECKSUMS):
            texts[entry.path] = entry.read(_LARGEST_TEXT)
    if MANIFEST not in texts or names[-1] != CHECKSUMS:
        cut_off = bool(names) and names[0] == "items-00000.parquet"
        raise ArchiveRejected(f"it is {'a snapshot that was cut off' if cut_off else 'no snapshot of a gallery'}")
    with may_be_hostile(partial(_damaged, CHECKSUMS)):
        lines = [line.split("  ", 1) for line in texts[CHECKSUMS].decode().splitlines()]
        sums = {name: checksum for checksum, name in lines}
    if list(sums) != names[:-1] or len(sums) != len(lines):
        raise ArchiveRejected(f"the snapshot is damaged: {CHECKSUMS} names other members than there are")
    if sha256(texts[MANIFEST]).hexdigest() != sums[MANIFEST]:
        raise ArchiveRejected(f"the snapshot is damaged: {MANIFEST} is not what its checksum says")
    version = _version(texts[MANIFEST])
    if version != FORMAT_VERSION:
        raise ArchiveRejected(f"the snapshot has format version {version}; this server reads version {FORMAT_VERSION}")
    try:
        manifest = ArchiveManifest.model_validate_json(texts[MANIFEST])
    except ValidationError as error:
        raise _damaged(MANIFEST) from error
    parts = [part.name for part in manifest.parts]
    if [*parts, MANIFEST] != list(sums) or sum(part.items for part in manifest.parts) != manifest.items:
        raise _damaged(MANIFEST)
    return manifest, sums


def _version(manifest: bytes) -> object:
    try:
        return json.loads(manifest)["version"]
    except (ValueError, TypeError, KeyError) as error:
        raise _damaged(MANIFEST) from error


def _damaged(member: str) -> ArchiveRejected:
    return ArchiveRejected(f"the snapshot is damaged: {member} cannot be read")


def _items(file: IO[bytes], part: ArchivePart, gallery: ArchivedGallery) -> Iterator[list[NewItem]]:
    """The items of a part, group by group; any exception means that they are not what they must be."""
    import pyarrow.parquet as parquet

    table = parquet.ParquetFile(file, pre_buffer=False)
    found = table.metadata
    size = sum(found.row_group(number).total_byte_size for number in range(found.num_row_groups))
    if found.num_rows != part.items or size > _LARGEST_PART or not table.schema_arrow.equals(schema(gallery)):
        raise ValueError("it has other rows or columns than a part of a snapshot")
    for batch in table.iter_batches(batch_size=_GROUP):
        yield _new_items(batch, gallery)


def _new_items(batch: Any, gallery: ArchivedGallery) -> list[NewItem]:
    vectors = _vectors(batch.column("vector"), gallery)
    thumbnails = batch.column("thumbnail").to_pylist()
    rows = batch.drop_columns(["vector", "thumbnail"]).to_pylist()
    for row in rows:
        row["attributes"] = json.loads(row["attributes"])
    validated = _ROWS.validate_python(rows)
    return [_new_item(*one) for one in zip(validated, vectors, thumbnails, strict=True)]


def _new_item(row: _ItemRow, vector: Vectors, thumbnail: bytes | None) -> NewItem:
    if thumbnail is not None and (len(thumbnail) > _LARGEST_THUMBNAIL or thumbnail_type(thumbnail) is None):
        raise ValueError("a thumbnail is no JPEG or WebP file")
    item = row.item(row.modality, content=row.content, warnings=row.warnings)
    return NewItem(item, vector, thumbnail, row.stored_at)


def _vectors(column: Any, gallery: ArchivedGallery) -> Vectors:
    """float32 ``[n, dimension]``, each the number that is stored."""
    values = column.flatten().to_numpy(zero_copy_only=False)
    vectors: Vectors = values.astype(np.float32).reshape(len(column), gallery.dimension)
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
    if not (np.abs(lengths - 1) <= 2 * UNIT_NORM_TOLERANCE).all():  # float16 may have added as much again
        raise ValueError("a vector is not of unit length")
    return vectors
