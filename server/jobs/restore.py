"""The job kind ``restore``: a snapshot (see ``server.gallery.portable``) into a new gallery.

The gallery is a draft, which nobody sees, until all of it is there. Each part is put only after its checksum was found
right. Nothing of the file is trusted for being sound: a checksum shows damage, not good will.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from hashlib import file_digest, sha256
from pathlib import Path
from typing import IO, Any

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError

from server.embedding.decode import thumbnail_type
from server.errors import ArchiveRejected
from server.fields import VectorFacts
from server.gallery.portable import MANIFEST, SUMS, VERSION, Kept, Manifest, Part, schema
from server.gallery.protocol import Store
from server.gallery.service import UNIT_TOLERANCE, Galleries
from server.gallery.types import CropWarning, Gallery, NewItem, Vectors
from server.jobs.imports.entries import Entry, may_be_hostile
from server.jobs.imports.kind import BODY
from server.jobs.imports.tar import TarSource
from server.jobs.runner import Context
from server.jobs.unfinished import draft_of

__all__ = ["RESTORE", "Restore"]

RESTORE = "restore"
"""Name of the kind."""

_GROUP = 1000
"""Items that are put as one."""

_LARGEST_TEXT = 16 * 2**20
_LARGEST_PART = 2**30  # of memory; a real one has a twentieth
_LARGEST_THUMBNAIL = 2**20


class _Facts(VectorFacts):
    """The columns of a row, but for vector and thumbnail."""

    warnings: frozenset[CropWarning]
    content: str | None = Field(pattern=r"^[0-9a-f]{64}$")
    stored_at: datetime


_ROWS = TypeAdapter(list[_Facts])


class Restore:
    """Makes galleries of ``store`` out of snapshots."""

    def __init__(self, galleries: Galleries, store: Store) -> None:
        self._galleries, self._store = galleries, store

    def run(self, context: Context) -> None:
        """See :class:`Kind`. A position is the number of parts that are stored.

        Raises:
            ArchiveRejected: the file is damaged, cut off, or no snapshot; nothing is left of it.
            GalleryExists, AliasExists: the name was given away meanwhile.
        """
        self._galleries.list(limit=1)  # NotReady until the store is known to be sound
        draft = draft_of(context.job.id)
        stored = context.job.cursor
        if stored is not None and draft not in self._store.drafts():
            return  # it was published before a crash
        body = context.folder / BODY
        if not body.exists():
            raise ArchiveRejected("the upload is gone; send it again")
        manifest, sums = _contents(body)
        context.set_total(manifest.items)
        if stored is None:
            self._begin(draft, manifest.gallery)
            context.advance(stored := 0)
        parts = {part.name: (number, part) for number, part in enumerate(manifest.parts, 1)}
        for entry in TarSource(body).entries():
            number, part = parts.get(entry.path, (0, None))
            if part is not None and number > stored:
                self._put(context, draft, entry, part, manifest.gallery, sums[part.name])
                context.advance(number, done=part.items)
        if self._store.gallery(draft).items != manifest.items:
            raise ArchiveRejected("the snapshot is damaged: some of its items have the same id")
        self._galleries.publish(draft, context.job.gallery or "")

    def _begin(self, draft: str, kept: Kept) -> None:
        if draft in self._store.drafts():
            self._store.delete_gallery(draft)
        facts = kept.model_dump() | {"name": draft, "created_at": datetime.now(UTC), "items": 0}
        self._store.create_gallery(Gallery(**facts))

    def _put(self, context: Context, draft: str, entry: Entry, part: Part, kept: Kept, checksum: str) -> None:
        with may_be_hostile(partial(_damaged, part.name)), entry.open() as file:
            if file_digest(file, "sha256").hexdigest() != checksum:  # type: ignore[arg-type]  # any readable will do
                raise ArchiveRejected(f"the snapshot is damaged: {part.name} is not what its checksum says")
            file.seek(0)
            groups = _items(file, part, kept)
        while True:
            with may_be_hostile(partial(_damaged, part.name)):
                items = next(groups, None)
            if items is None:
                return
            self._store.put(draft, items)
            context.check()


def _contents(body: Path) -> tuple[Manifest, dict[str, str]]:
    """The manifest, and the checksum of each member before the last, whose content is not looked at yet."""
    names: list[str] = []
    texts: dict[str, bytes] = {}
    for entry in TarSource(body).entries():
        names.append(entry.path)
        if entry.path in (MANIFEST, SUMS):
            texts[entry.path] = entry.read(_LARGEST_TEXT)
    if MANIFEST not in texts or names[-1] != SUMS:
        cut_off = bool(names) and names[0] == "items-00000.parquet"
        raise ArchiveRejected(f"it is {'a snapshot that was cut off' if cut_off else 'no snapshot of a gallery'}")
    with may_be_hostile(partial(_damaged, SUMS)):
        lines = [line.split("  ", 1) for line in texts[SUMS].decode().splitlines()]
        sums = {name: checksum for checksum, name in lines}
    if list(sums) != names[:-1] or len(sums) != len(lines):
        raise ArchiveRejected(f"the snapshot is damaged: {SUMS} names other members than there are")
    if sha256(texts[MANIFEST]).hexdigest() != sums[MANIFEST]:
        raise ArchiveRejected(f"the snapshot is damaged: {MANIFEST} is not what its checksum says")
    version = _version(texts[MANIFEST])
    if version != VERSION:
        raise ArchiveRejected(f"the snapshot has format version {version}; this server reads version {VERSION}")
    try:
        manifest = Manifest.model_validate_json(texts[MANIFEST])
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


def _items(file: IO[bytes], part: Part, kept: Kept) -> Iterator[list[NewItem]]:
    """The items of a part, group by group; any exception means that they are not what they must be."""
    import pyarrow.parquet as parquet

    table = parquet.ParquetFile(file, pre_buffer=False)
    found = table.metadata
    size = sum(found.row_group(number).total_byte_size for number in range(found.num_row_groups))
    if found.num_rows != part.items or size > _LARGEST_PART or not table.schema_arrow.equals(schema(kept)):
        raise ValueError("it has other rows or columns than a part of a snapshot")
    for batch in table.iter_batches(batch_size=_GROUP):
        yield _new_items(batch, kept)


def _new_items(batch: Any, kept: Kept) -> list[NewItem]:
    vectors = _vectors(batch.column("vector"), kept)
    thumbnails = batch.column("thumbnail").to_pylist()
    rows = batch.drop_columns(["vector", "thumbnail"]).to_pylist()
    for row in rows:
        row["attributes"] = json.loads(row["attributes"])
    facts = _ROWS.validate_python(rows)
    return [_new_item(*one) for one in zip(facts, vectors, thumbnails, strict=True)]


def _new_item(facts: _Facts, vector: Vectors, thumbnail: bytes | None) -> NewItem:
    if thumbnail is not None and (len(thumbnail) > _LARGEST_THUMBNAIL or thumbnail_type(thumbnail) is None):
        raise ValueError("a thumbnail is no JPEG or WebP file")
    item = facts.item(facts.modality, content=facts.content, warnings=facts.warnings)
    return NewItem(item, vector, thumbnail, facts.stored_at)


def _vectors(column: Any, kept: Kept) -> Vectors:
    """float32 ``[n, dimension]``, each the number that is stored."""
    values = column.flatten().to_numpy(zero_copy_only=False)
    vectors: Vectors = values.astype(np.float32).reshape(len(column), kept.dimension)
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
    if not (np.abs(lengths - 1) <= 2 * UNIT_TOLERANCE).all():  # float16 may have added as much again
        raise ValueError("a vector is not of unit length")
    return vectors
