"""Ready-made vectors into a gallery: NDJSON line by line, Parquet batch by batch, in constant memory."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
from pydantic import ValidationError

from server.errors import ArchiveRejected, EntryRejected, ModelMismatch, ServiceError
from server.faults import InvalidRequest, field_errors, invalid
from server.fields import LENGTH_TOLERANCE, VectorFacts, VectorFields, content_of, unit_vector
from server.gallery.types import NewItem, Vectors
from server.jobs.imports.entries import Position, damaged, may_be_hostile
from server.jobs.imports.gallery import Target, news_of
from server.jobs.runner import Context

__all__ = ["GROUP", "NdjsonVectors", "ParquetVectors", "import_vectors"]

GROUP = 2000
"""Vectors that are stored, and noted, as one."""

_LONGEST_LINE = 4 * 2**20
_BUFFER = 2**20  # of a column of a Parquet file, which would be read whole without one


@dataclass(frozen=True, slots=True)
class _Row:
    """An entry by its name and position: its facts and its unit vector, or what is wrong with it."""

    name: str
    position: Position
    found: tuple[VectorFacts, Vectors] | ServiceError


class VectorSource(Protocol):
    """A file of vectors. Its order never changes. Raises ``ArchiveRejected`` where it cannot be read."""

    def count(self) -> int:
        """How many entries there are."""

    def rows(self, after: Position | None) -> Iterator[_Row]:
        """The entries, those that come after a position."""


def import_vectors(context: Context, source: VectorSource, target: Target) -> None:
    """Add every vector of ``source``, from the job's cursor on.

    An item that is there with the same vector is skipped, or what is told anew is changed.

    Raises:
        ArchiveRejected: the source cannot be used, or not to its end; what was stored stays.
        ServiceError: what concerns more than single entries.
    """
    context.set_total(source.count())
    rows = source.rows(context.job.cursor)
    while group := list(islice(rows, GROUP)):
        _store(context, target, group)


def _store(context: Context, target: Target, rows: Sequence[_Row]) -> None:
    gallery = target.gallery()
    new: list[NewItem] = []
    failed: list[tuple[str, ServiceError]] = []
    for row in rows:
        if isinstance(row.found, ServiceError):
            failed.append((row.name, row.found))
            continue
        facts, vector = row.found
        if facts.id is None:  # a generated one would add the entry anew with each run
            failed.append((row.name, invalid("id", "is required in an import")))
        elif len(vector) != gallery.dimension:
            error = ModelMismatch(gallery.name, f"{gallery.dimension} numbers", f"{len(vector)}")
            failed.append((row.name, error))
        else:
            new.append(NewItem(facts.item(facts.modality, content=content_of(vector)), vector))
    times = Counter(one.item.id for one in new)
    held = target.held({one.item.id: one.item.content or "" for one in new if times[one.item.id] == 1})
    fresh: list[NewItem] = []
    changes: dict[str, dict[str, object]] = {}
    for one in new:
        there = held.get(one.item.id)
        if there is None or there.modality is not one.item.modality:
            fresh.append(one)
        elif news := news_of(one.item, there):
            changes[one.item.id] = news
    if fresh:
        target.put(fresh)
    target.relabel(changes)
    done = len(fresh) + len(changes)
    context.advance(rows[-1].position, done=done, skipped=len(new) - done, failed=failed)


class NdjsonVectors:
    """A file with one JSON object a line; empty lines do not count. A position is line, from 1, and byte behind it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def count(self) -> int:
        """See :class:`VectorSource`."""
        with self._path.open("rb") as file:
            return sum(line is None or not line.isspace() for line in _lines(file))

    def rows(self, after: tuple[int, int] | None) -> Iterator[_Row]:
        """See :class:`VectorSource`."""
        before, offset = after or (0, 0)
        with self._path.open("rb") as file:
            file.seek(offset)
            for number, line in enumerate(_lines(file), before + 1):
                if line is None or not line.isspace():
                    yield _Row(f"line {number}", (number, file.tell()), _parsed(line))


def _lines(file: IO[bytes]) -> Iterator[bytes | None]:
    """The lines; None for one that is too long."""
    while line := file.readline(_LONGEST_LINE + 1):
        if len(line) <= _LONGEST_LINE:
            yield line
            continue
        while line and not line.endswith(b"\n"):
            line = file.readline(_LONGEST_LINE)
        yield None


def _parsed(line: bytes | None) -> tuple[VectorFacts, Vectors] | ServiceError:
    if line is None:
        return EntryRejected(f"it has more than {_LONGEST_LINE:,} bytes")
    try:
        fields = VectorFields.model_validate_json(line)
    except ValidationError as error:
        return InvalidRequest(field_errors(error.errors()))
    return fields, unit_vector(fields.vector)


class ParquetVectors:
    """A Parquet file with the columns id, modality and vector, and any of identity, camera, captured_at, attributes.

    ``vector`` is a list of numbers, ``attributes`` JSON text, a struct or a map. A position is the row's number from 1.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def count(self) -> int:
        """See :class:`VectorSource`."""
        with self._open() as file:
            return int(file.metadata.num_rows)

    def rows(self, after: int | None) -> Iterator[_Row]:
        """See :class:`VectorSource`."""
        number = 0
        with self._open() as file:
            batches = file.iter_batches(batch_size=GROUP)
            while True:
                with may_be_hostile(partial(damaged, number)):
                    batch = next(batches, None)
                    if batch is None:
                        return
                    found = [] if after and number + len(batch) <= after else _converted(batch)
                for place, one in enumerate(found, number + 1):
                    if after is None or place > after:
                        yield _Row(f"row {place}", place, one)
                number += len(batch)

    def _open(self) -> Any:
        import pyarrow.parquet as parquet  # only here and for patterns: it takes tens of megabytes

        with may_be_hostile(lambda: ArchiveRejected("it is not a Parquet file, or it is damaged")):
            file = parquet.ParquetFile(self._path, buffer_size=_BUFFER, pre_buffer=False)
            columns = file.schema_arrow.names
            known = VectorFields.model_fields
            if unknown := [name for name in columns if name not in known]:
                raise ArchiveRejected(f"it has the column {unknown[0]}; known are {', '.join(known)}")
            if missing := [name for name in ("id", "modality", "vector") if name not in columns]:
                raise ArchiveRejected(f"it has no column {missing[0]}")
            return file


def _converted(batch: Any) -> list[tuple[VectorFacts, Vectors] | ServiceError]:
    vectors = _unit_vectors(batch.column("vector"))
    rows = _with_micros(batch.drop_columns(["vector"])).to_pylist()
    return [
        vector if isinstance(vector, ServiceError) else _facts(row, vector)
        for row, vector in zip(rows, vectors, strict=True)
    ]


def _facts(row: dict[str, Any], vector: Vectors) -> tuple[VectorFacts, Vectors] | ServiceError:
    given = {name: value for name, value in row.items() if value is not None}
    try:
        if "attributes" in given:
            given["attributes"] = _attributes(given["attributes"])
        return VectorFacts.model_validate(given), vector
    except ValidationError as error:
        return InvalidRequest(field_errors(error.errors()))
    except ValueError:
        return invalid("attributes", "is not valid JSON")


def _attributes(value: Any) -> Any:
    """Attributes of any of the column types that hold them; what a struct has no value for is left out."""
    if isinstance(value, str):
        return json.loads(value)
    return {name: entry for name, entry in dict(value).items() if entry is not None}


def _with_micros(batch: Any) -> Any:
    """The batch with its times in microseconds, the finest that Python has."""
    import pyarrow as arrow

    for place, column in enumerate(batch.schema):
        if arrow.types.is_timestamp(column.type):
            times = batch.column(place).cast(arrow.timestamp("us", column.type.tz), safe=False)
            batch = batch.set_column(place, column.name, times)
    return batch


def _unit_vectors(column: Any) -> list[Vectors | ServiceError]:
    """Each row as a unit vector float32 ``[D]``, or what is wrong with it."""
    import pyarrow as arrow

    lists = column.cast(arrow.large_list(arrow.float32()), safe=False)
    ends = lists.offsets.to_numpy()
    values = lists.values.to_numpy(zero_copy_only=False)
    return [
        invalid("vector", "is required") if null else _unit(values[start:end])
        for null, start, end in zip(lists.is_null().to_pylist(), ends[:-1], ends[1:], strict=True)
    ]


def _unit(values: Vectors) -> Vectors | ServiceError:
    length = float(np.linalg.norm(values.astype(np.float64)))
    if not abs(length - 1) <= LENGTH_TOLERANCE:
        return invalid("vector", f"has length {length:.4g}; a unit vector is expected")
    return unit_vector(values)
