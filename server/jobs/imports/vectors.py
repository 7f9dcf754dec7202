"""Precomputed vectors into a gallery: read by a process of their own, validated and stored in groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import tzinfo
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
from pydantic import ValidationError

from server.domain.errors import EntryRejected, ModelMismatch, ServiceError
from server.domain.fields import UNIT_NORM_TOLERANCE, VectorMetadata, content_of, unit_vector
from server.domain.types import Gallery, NewItem, Vectors
from server.domain.validation import InvalidRequest, field_errors, invalid
from server.jobs.imports.import_target import Arrival, ImportTarget
from server.jobs.imports.labels import normalized
from server.jobs.imports.vector_rows import VectorRow
from server.jobs.reader_process import READER_MEMORY, read_in_process
from server.jobs.runner import Context

__all__ = ["GROUP", "READERS", "import_vectors"]

GROUP = 2000
"""Vectors that are stored and recorded together."""

READERS: Mapping[str, tuple[str, int]] = {
    "ndjson": ("server.jobs.imports.ndjson:read_ndjson", READER_MEMORY),
    "parquet": ("server.jobs.imports.parquet:read_parquet", 2 * READER_MEMORY),
}
"""The generator that reads each format, and the bytes of address space that its process may take."""


def import_vectors(context: Context, format: str, body: Any, target: ImportTarget, zone: tzinfo | None) -> None:
    """Add every vector of the file ``body``, from the job's cursor on.

    An item that is stored with the same vector is skipped, or its metadata is updated.

    Raises:
        ArchiveRejected: the file cannot be used, or not to its end; what was stored stays.
        ServiceError: an error that concerns more than single entries.
    """
    reader, memory = READERS[format]
    arguments = (body, context.job.cursor, target.gallery().dimension)
    with closing(read_in_process(reader, *arguments, check=context.check, memory=memory)) as messages:
        survey = next(messages)
        context.set_total(survey.rows, ignored=survey.ignored)
        while group := list(islice(messages, GROUP)):
            _store(context, target, group, zone)


def _store(context: Context, target: ImportTarget, rows: Sequence[VectorRow], zone: tzinfo | None) -> None:
    gallery = target.gallery()
    arrivals: list[Arrival[Vectors]] = []
    failed: list[tuple[str, ServiceError]] = []
    for row in rows:
        try:
            arrivals.append(_arrival(row, gallery, zone))
        except ServiceError as error:
            failed.append((row.name, error))
    sifted = target.sift(arrivals, {})
    new = [NewItem(one.item(one.modality), one.payload) for one in sifted.new if one.modality is not None]
    if new:
        target.put(new)
    target.relabel(sifted.changes)
    context.advance(
        rows[-1].position,
        done=len(new) + len(sifted.changes),
        skipped=sifted.skipped,
        replaced=sifted.replaced,
        failed=failed,
    )


def _arrival(row: VectorRow, gallery: Gallery, zone: tzinfo | None) -> Arrival[Vectors]:
    if row.error is not None:
        raise _error(row.error, gallery)
    try:
        fields = VectorMetadata.model_validate(normalized(row.fields or {}, zone))
    except ValidationError as error:
        raise InvalidRequest(field_errors(error.errors())) from None
    if fields.id is None:  # a generated one would add the entry again with each run
        raise invalid("id", "is required in an import")
    vector = _unit_vector(np.frombuffer(row.vector, row.dtype))
    content = content_of(vector)
    return Arrival(row.name, fields.id, content, fields.modality, partial(fields.item, content=content), vector)


def _error(error: tuple[str, ...], gallery: Gallery) -> ServiceError:
    match error:
        case ("invalid", field, detail):
            return invalid(field, detail)
        case ("dimension", found):
            return ModelMismatch(gallery.name, f"{gallery.dimension} numbers", found)
        case (_, reason):
            return EntryRejected(reason)
    raise AssertionError(error)


def _unit_vector(values: Any) -> Vectors:
    if not np.isfinite(values).all():
        raise invalid("vector", "has numbers that are not finite, such as NaN")
    length = float(np.linalg.norm(values.astype(np.float64)))
    if not abs(length - 1) <= UNIT_NORM_TOLERANCE:
        raise invalid("vector", f"has length {length:.4g}; a unit vector is expected")
    return unit_vector(values)
