"""A whole gallery as one portable file: a tar archive of Parquet files, with checksums.

Members, in this order; nothing else:

* ``items-00000.parquet``, … : the items, in the columns of :func:`schema`; vectors as they are stored, bit by bit;
* ``manifest.json``: what the gallery is, :class:`Manifest`;
* ``SHA256SUMS``: of every member before it, as ``sha256sum --check`` reads it.

The checksums come last because the file is made while it is sent. A file without them was cut off.
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

from server.fields import Id, Wire
from server.gallery.types import Gallery, NewItem, VectorType

__all__ = ["MANIFEST", "PART", "PART_BYTES", "SUMS", "VERSION", "Kept", "Manifest", "Part", "schema", "snapshot"]

VERSION = 1
"""Of the format; raised with every change that readers must know of."""

MANIFEST, SUMS = "manifest.json", "SHA256SUMS"

PART = 10_000
"""Items of a Parquet file, which is one row group, at most."""

PART_BYTES = 32 * 2**20
"""A Parquet file is not begun with more; bounds the memory that a snapshot takes."""

_ENCODED = ["modality", "identity", "camera", "attributes"]  # few different values; the rest is different in each row


class Kept(Wire):
    """What is kept of a gallery; ``created_at`` is when the original was."""

    name: Id
    model: str = Field(max_length=256)
    fingerprint: str = Field(max_length=256)
    dimension: int = Field(ge=1, le=65536)
    vector_type: VectorType
    thumbnails: bool
    retention_days: int | None = Field(ge=1, le=36500)
    description: str | None = Field(max_length=1024)
    created_at: datetime


class Part(Wire):
    """A Parquet file and its number of items."""

    name: str
    items: int = Field(ge=1, le=PART)


class Manifest(Wire):
    """What a snapshot is of, when it was taken, and how much it holds."""

    format: Literal["vireid-gallery"] = "vireid-gallery"
    version: int
    taken_at: datetime
    gallery: Kept
    items: int = Field(ge=0)
    parts: tuple[Part, ...]


def schema(gallery: Gallery | Kept) -> Any:
    """The Arrow schema of the Parquet files."""
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
    """The file, piece by piece, in memory for one part."""
    sums: dict[str, str] = {}
    parts: list[Part] = []
    for rows in _parts(items):
        name = f"items-{len(parts):05}.parquet"
        parts.append(Part(name=name, items=len(rows)))
        yield from _member(name, _parquet(gallery, rows), sums)
    kept = Kept(**{name: getattr(gallery, name) for name in Kept.model_fields})
    total = sum(part.items for part in parts)
    manifest = Manifest(version=VERSION, taken_at=datetime.now(UTC), gallery=kept, items=total, parts=tuple(parts))
    yield from _member(MANIFEST, manifest.model_dump_json(indent=2).encode() + b"\n", sums)
    yield from _member(SUMS, _lines(sums), {})
    yield bytes(2 * tarfile.BLOCKSIZE)


def _lines(sums: Mapping[str, str]) -> bytes:
    return "".join(f"{checksum}  {name}\n" for name, checksum in sums.items()).encode()


def _parts(items: Iterator[NewItem]) -> Iterator[list[NewItem]]:
    rows: list[NewItem] = []
    size = 0
    for new in items:
        rows.append(new)
        size += new.vector.nbytes + len(new.thumbnail or b"")
        if len(rows) == PART or size >= PART_BYTES:
            yield rows
            rows, size = [], 0
    if rows:
        yield rows


def _parquet(gallery: Gallery, rows: Sequence[NewItem]) -> bytes:
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    wanted = schema(gallery)
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
    arrays = [arrow.array(columns[field.name], field.type) for field in wanted if field.name != "vector"]
    arrays.insert(wanted.get_field_index("vector"), columns["vector"])
    out = io.BytesIO()
    table = arrow.Table.from_arrays(arrays, schema=wanted)
    parquet.write_table(table, out, row_group_size=PART, compression="zstd", use_dictionary=_ENCODED)
    return out.getvalue()


def _member(name: str, content: bytes, sums: dict[str, str]) -> Iterator[bytes]:
    sums[name] = sha256(content).hexdigest()
    header = tarfile.TarInfo(name)
    header.size = len(content)
    yield header.tobuf(tarfile.USTAR_FORMAT)
    yield content
    yield bytes(-len(content) % tarfile.BLOCKSIZE)
