"""Vectors as Parquet, read in the reader process: batch by batch, in bounded memory.

What the metadata claims is checked before anything is read; where it lies, the limit on memory of the process holds.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from server.domain.errors import ArchiveRejected
from server.jobs.imports.archive_entries import damaged, may_be_hostile
from server.jobs.imports.manifest import used_columns
from server.jobs.imports.vector_rows import VectorRow, VectorSurvey
from server.jobs.report import ReasonCounts
from server.jobs.upload import Upload

__all__ = ["read_parquet"]

_COLUMNS = ("id", "modality", "vector", "identity", "camera", "captured_at", "attributes")
_BATCH_ROWS, _BATCH_BYTES = 2000, 16 * 2**20
_BUFFER = 2**20  # of a column, which would be read whole without one
_LARGEST_FOOTER = 16 * 2**20
_MOST_COLUMNS, _DEEPEST = 1000, 8
_LONGEST_TEXT = 2**16
_SPARE_NUMBERS = 2**20  # a row group may have beyond one vector a row


def read_parquet(upload: Upload, after: int | None, dimension: int) -> Iterator[VectorSurvey | VectorRow]:
    """Yield the number of rows, then those behind ``after``. A position is the number of a row, from 1.

    Columns are id, modality and vector (a list of numbers), and any of identity, camera, captured_at and attributes
    (JSON text, a struct or a map).
    """
    file, columns, ignored = _open(upload)
    with file:
        yield VectorSurvey(file.metadata.num_rows, ignored.to_json())
        number = 0
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if after is None or number + rows > after:
                _check_group(file, group, columns, dimension)
                for row in _rows(file, group, number, columns, dimension):
                    if after is None or row.position > after:
                        yield row
            number += rows


def _open(upload: Upload) -> tuple[Any, dict[str, str], ReasonCounts]:
    """Open the file; returns it, its columns by what they are, and what else is in it."""
    import pyarrow.parquet as parquet

    refused = "it is not a Parquet file, or it is damaged"
    with may_be_hostile(lambda: ArchiveRejected(refused)):
        with upload.open() as bytes_:
            bytes_.seek(-8, 2)
            footer, mark = struct.unpack("<L4s", bytes_.read(8))
        if mark != b"PAR1":
            raise ArchiveRejected(refused)
        if footer > _LARGEST_FOOTER:
            raise ArchiveRejected(f"its metadata has {footer:,} bytes; at most {_LARGEST_FOOTER:,} are taken")
        file = parquet.ParquetFile(
            _source(upload),
            buffer_size=_BUFFER,
            pre_buffer=False,
            thrift_string_size_limit=_LARGEST_FOOTER,
            thrift_container_size_limit=_LARGEST_FOOTER // 8,
        )
        leaves = [file.schema.column(place) for place in range(len(file.schema.names))]
        if len(leaves) > _MOST_COLUMNS or any(leaf.path.count(".") > _DEEPEST for leaf in leaves):
            raise ArchiveRejected(f"it has more than {_MOST_COLUMNS:,} columns, or columns in columns")
        names = file.schema_arrow.names
        used, unknown = used_columns(names, "it", _COLUMNS)
        columns = {known: name for known, name in zip(used, names, strict=True) if known is not None}
        if missing := [name for name in ("id", "modality", "vector") if name not in columns]:
            raise ArchiveRejected(f"it has no column {missing[0]}")
        texts = [name for known, name in columns.items() if known != "vector" and _is_text(file, name)]
        if texts:  # read as dictionaries: a text that stands in every row is in memory once
            file.close()
            file = parquet.ParquetFile(_source(upload), buffer_size=_BUFFER, pre_buffer=False, read_dictionary=texts)
    ignored = ReasonCounts()
    for name in unknown:
        ignored.add("unknown column", name)
    return file, columns, ignored


def _source(upload: Upload) -> Any:
    """Return what Arrow reads: a plain file by itself, which is faster, an encrypted one through this program."""
    return upload.path if upload.cipher is None else upload.open()


def _is_text(file: Any, name: str) -> bool:
    import pyarrow as arrow

    kind = file.schema_arrow.field(name).type
    return bool(arrow.types.is_string(kind) or arrow.types.is_large_string(kind))


def _check_group(file: Any, group: int, columns: dict[str, str], dimension: int) -> None:
    """Refuse lists that are no vectors of the gallery, by what the metadata says of them."""
    metadata = file.metadata.row_group(group)
    with may_be_hostile(lambda: ArchiveRejected("it is not a Parquet file, or it is damaged")):
        for place in range(metadata.num_columns):
            chunk = metadata.column(place)
            numbers, is_vector = chunk.num_values, chunk.path_in_schema.split(".")[0] == columns["vector"]
            if is_vector and numbers > dimension * metadata.num_rows + _SPARE_NUMBERS:
                mean = numbers // max(1, metadata.num_rows)
                raise ArchiveRejected(f"its vectors have {mean:,} numbers; those of the gallery have {dimension:,}")


def _rows(file: Any, group: int, number: int, columns: dict[str, str], dimension: int) -> Iterator[VectorRow]:
    size = max(1, min(_BATCH_ROWS, _BATCH_BYTES // (8 * dimension)))
    batches = file.iter_batches(batch_size=size, row_groups=[group], columns=list(columns.values()), use_threads=False)
    while True:
        with may_be_hostile(partial(damaged, number)):
            batch = next(batches, None)
            if batch is None:
                return
            found = _converted(batch, columns, dimension)
        for place, row in enumerate(found, number + 1):
            yield row(f"row {place}", place)
        number += len(batch)


def _converted(batch: Any, columns: dict[str, str], dimension: int) -> list[partial[VectorRow]]:
    vectors = _vectors(batch.column(columns["vector"]), dimension)
    values = {known: _values(batch.column(name)) for known, name in columns.items() if known != "vector"}
    rows = []
    for place, vector in enumerate(vectors):
        fields = {known: column[place] for known, column in values.items() if column[place] is not None}
        error = _text_fault(fields) or _take_attributes(fields)
        if isinstance(vector, tuple):
            rows.append(partial(VectorRow, error=vector))
        elif error is not None:
            rows.append(partial(VectorRow, error=error))
        else:
            rows.append(partial(VectorRow, fields=fields, dtype="<f4", vector=vector))
    return rows


def _text_fault(fields: dict[str, Any]) -> tuple[str, ...] | None:
    for name, value in fields.items():
        if value is _TOO_LONG:
            return "invalid", name, f"must have at most {_LONGEST_TEXT:,} bytes"
    return None


_TOO_LONG = object()


def _values(column: Any) -> Sequence[Any]:
    """Return a column as Python values, times in microseconds, the finest that Python has."""
    import pyarrow as arrow
    import pyarrow.compute as compute

    if arrow.types.is_timestamp(column.type):
        column = column.cast(arrow.timestamp("us", column.type.tz), safe=False)
    if not arrow.types.is_dictionary(column.type):
        values: list[Any] = column.to_pylist()
        return [
            _TOO_LONG if isinstance(value, str | bytes) and len(value) > _LONGEST_TEXT else value for value in values
        ]
    lengths = compute.binary_length(column.dictionary).to_pylist()
    texts = [
        _TOO_LONG if length is not None and length > _LONGEST_TEXT else text.as_py()
        for length, text in zip(lengths, column.dictionary, strict=True)
    ]
    return [None if index is None else texts[index] for index in column.indices.to_pylist()]


def _is_long_text(value: object) -> bool:
    return isinstance(value, str | bytes) and len(value) > _LONGEST_TEXT


def _take_attributes(fields: dict[str, Any]) -> tuple[str, ...] | None:
    """Put attributes in place of any of the column types that hold them; what a struct has no value for is left out."""
    value = fields.get("attributes")
    if value is None:
        return None
    try:
        if isinstance(value, str):
            fields["attributes"] = json.loads(value)
        else:
            fields["attributes"] = {name: entry for name, entry in dict(value).items() if entry is not None}
    except (ValueError, RecursionError):
        return "invalid", "attributes", "is not valid JSON"
    return None


def _vectors(column: Any, dimension: int) -> list[bytes | tuple[str, ...]]:
    """Return each row as float32 ``[dimension]`` in bytes, or what is wrong with it."""
    import pyarrow as arrow

    lists = column.cast(arrow.large_list(arrow.float32()), safe=False)
    offsets = lists.offsets.to_numpy()
    values = lists.values.to_numpy(zero_copy_only=False).astype("<f4", copy=False)
    found: list[bytes | tuple[str, ...]] = []
    for null, start, end in zip(lists.is_null().to_pylist(), offsets[:-1], offsets[1:], strict=True):
        if null:
            found.append(("invalid", "vector", "is required"))
        elif end - start != dimension:
            found.append(("dimension", str(int(end - start))))
        else:
            found.append(np.ascontiguousarray(values[start:end]).tobytes())
    return found
