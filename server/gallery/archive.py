"""Archives: a whole gallery as one portable file, a tar archive of Parquet files with checksums.

Its members are, in this order:

* ``items-00000.parquet``, … : the items, in the columns of :func:`schema`, with vectors bit by bit as stored;
* ``manifest.json``: metadata of the gallery, :class:`ArchiveManifest`;
* ``SHA256SUMS``: the checksums of all members before it, as ``sha256sum --check`` reads them.

The checksums come last because the file is created while it is sent. A file without them is incomplete.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Literal

import numpy as np
from pydantic import Field

from server.domain.fields import Id, Wire
from server.domain.types import Gallery, NewItem, VectorType

__all__ = [
    "CHECKSUMS",
    "FORMAT_VERSION",
    "MANIFEST",
    "MAX_PART_BYTES",
    "MAX_PART_ITEMS",
    "ArchiveManifest",
    "ArchivePart",
    "ArchivedGallery",
    "schema",
    "snapshot",
]

FORMAT_VERSION = 1
"""Version of the format; increased with every incompatible change."""

MANIFEST, CHECKSUMS = "manifest.json", "SHA256SUMS"

MAX_PART_ITEMS = 10_000
"""Most items of a Parquet file, which is one row group."""

MAX_PART_BYTES = 32 * 2**20
"""Bytes after which a Parquet file is complete; bounds the memory that writing takes."""

_ENCODED = ["modality", "identity", "camera", "attributes"]  # few distinct values


class ArchivedGallery(Wire):
    """Metadata of the archived gallery; ``created_at`` is the time of the original."""

    name: Id
    model: str = Field(max_length=256)
    fingerprint: str = Field(max_length=256)
    dimension: int = Field(ge=1, le=65536)
    vector_type: VectorType
    thumbnails: bool
    retention_days: int | None = Field(ge=1, le=36500)
    description: str | None = Field(max_length=1024)
    created_at: datetime


class ArchivePart(Wire):
    """A Parquet file and its number of items."""

    name: str
    items: int = Field(ge=1, le=MAX_PART_ITEMS)


class ArchiveManifest(Wire):
    """The archived gallery, the time of the archive, and its parts."""

    format: Literal["vireid-gallery"] = "vireid-gallery"
    version: int
    taken_at: datetime
    gallery: ArchivedGallery
    items: int = Field(ge=0)
    parts: tuple[ArchivePart, ...]


def schema(gallery: Gallery | ArchivedGallery) -> Any:
    """Return the Arrow schema of the Parquet files."""
    import pyarrow as arrow

    number = arrow.float16() if gallery.vector_type is VectorType.FLOAT16 else arrow.float32()
    moment = arrow.timestamp("us", "UTC")
    return arrow.schema(
        [
            arrow.field("id", arrow.string(), nullable=False),
            arrow.field("modality", arrow.string(), nullable=False),
            arrow.field("identity", arrow.string()),
            arrow.field("camera", arrow.string()),
            arrow.field("captured_at", moment),
            arrow.field("attributes", arrow.string(), nullable=False),  # JSON
            arrow.field("warnings", arrow.list_(arrow.string()), nullable=False),
            arrow.field("content", arrow.string()),
            arrow.field("stored_at", moment, nullable=False),
            arrow.field("vector", arrow.list_(number, gallery.dimension), nullable=False),
            arrow.field("thumbnail", arrow.binary()),
        ]
    )


def snapshot(gallery: Gallery, items: Iterator[NewItem]) -> Iterator[bytes]:
    """Yield the bytes of the archive; memory holds one part at a time."""
    sums: dict[str, str] = {}
    parts: list[ArchivePart] = []
    for rows in _parts(items):
        name = f"items-{len(parts):05}.parquet"
        parts.append(ArchivePart(name=name, items=len(rows)))
        yield from _member(name, _parquet(gallery, rows), sums)
    kept = ArchivedGallery(**{name: getattr(gallery, name) for name in ArchivedGallery.model_fields})
    total = sum(part.items for part in parts)
    manifest = ArchiveManifest(
        version=FORMAT_VERSION, taken_at=datetime.now(UTC), gallery=kept, items=total, parts=tuple(parts)
    )
    yield from _member(MANIFEST, manifest.model_dump_json(indent=2).encode() + b"\n", sums)
    yield from _member(CHECKSUMS, _lines(sums), {})
    yield bytes(2 * tarfile.BLOCKSIZE)


def _lines(sums: Mapping[str, str]) -> bytes:
    return "".join(f"{checksum}  {name}\n" for name, checksum in sums.items()).encode()


def _parts(items: Iterator[NewItem]) -> Iterator[list[NewItem]]:
    rows: list[NewItem] = []
    size = 0
    for new in items:
        rows.append(new)
        size += new.vector.nbytes + len(new.thumbnail or b"")
        if len(rows) == MAX_PART_ITEMS or size >= MAX_PART_BYTES:
            yield rows
            rows, size = [], 0
    if rows:
        yield rows


def _parquet(gallery: Gallery, rows: Sequence[NewItem]) -> bytes:
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    archive_schema = schema(gallery)
    vectors = np.stack([new.vector for new in rows]).astype(gallery.vector_type.dtype)
    columns = {
        **{name: [getattr(new.item, name) for new in rows] for name in ("id", "identity", "camera", "captured_at")},
        "modality": [new.item.modality.value for new in rows],
        "attributes": [json.dumps(dict(new.item.attributes), ensure_ascii=False) for new in rows],
        "warnings": [sorted(new.item.warnings) for new in rows],
        "content": [new.item.content for new in rows],
        "stored_at": [new.stored_at for new in rows],
        "vector": arrow.FixedSizeListArray.from_arrays(arrow.array(vectors.ravel()), gallery.dimension),
        "thumbnail": [new.thumbnail for new in rows],
    }
    arrays = [arrow.array(columns[field.name], field.type) for field in archive_schema if field.name != "vector"]
    arrays.insert(archive_schema.get_field_index("vector"), columns["vector"])
    out = io.BytesIO()
    table = arrow.Table.from_arrays(arrays, schema=archive_schema)
    parquet.write_table(table, out, row_group_size=MAX_PART_ITEMS, compression="zstd", use_dictionary=_ENCODED)
    return out.getvalue()


def _member(name: str, content: bytes, sums: dict[str, str]) -> Iterator[bytes]:
    sums[name] = sha256(content).hexdigest()
    header = tarfile.TarInfo(name)
    header.size = len(content)
    yield header.tobuf(tarfile.USTAR_FORMAT)
    yield content
    yield bytes(-len(content) % tarfile.BLOCKSIZE)
