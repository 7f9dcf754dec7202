"""Crops into a gallery: read by a process of their own, embedded and stored in groups, one ahead of the other."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Collection, Generator, Iterator
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import tzinfo
from functools import partial
from hashlib import sha256
from typing import Any

from pydantic import ValidationError

from models.crop_files import display_name, id_of
from server.domain.errors import EntryRejected, ServiceError
from server.domain.fields import ItemFields, ModalityChoice, NewFields
from server.domain.types import NewItem
from server.domain.validation import InvalidRequest, field_errors
from server.embedding.batcher import Priority
from server.embedding.engine import Detail, Embedding, Engine, Outcome
from server.jobs.imports.archive_entries import Position, Source
from server.jobs.imports.import_target import Arrival, ImportTarget, SiftedArrivals
from server.jobs.imports.labels import normalized
from server.jobs.imports.manifest import ManifestRow
from server.jobs.imports.pattern import PathPattern
from server.jobs.imports.reading import FileFailed, FileRead, Survey
from server.jobs.reader_process import read_in_process
from server.jobs.runner import Context

__all__ = ["GROUP", "Labels", "import_images"]

GROUP = 32
"""Entries that are stored and recorded together: a search's audit entry waits so long for the database, and a crash
may cost three groups."""

_GROUP_BYTES = 32 * 2**20
_AHEAD = 2  # groups in work while one is stored


@dataclass(frozen=True, slots=True)
class Labels:
    """What is known of all crops, or found in their paths. A manifest counts before ``pattern``, that before the rest.

    Times without a zone are of ``zone``; None: they are refused.
    """

    modality: ModalityChoice = ModalityChoice.AUTO
    pattern: PathPattern | None = None
    zone: tzinfo | None = None

    def fields(self, path: str, row: ManifestRow | None) -> ItemFields:
        """Return the fields of a crop, its id among them. Raises ``ServiceError`` where they cannot be used."""
        found: dict[str, Any] = {"modality": self.modality, **(self.pattern.fields(path) if self.pattern else {})}
        if row is not None:
            found |= _row_fields(row, self.zone)
        found.setdefault("id", id_of(path))
        try:
            return ItemFields.model_validate(normalized(found, self.zone))
        except ValidationError as error:
            raise InvalidRequest(field_errors(error.errors())) from None


class _Row(NewFields):
    """A row of a manifest: the path of a file, and what is known of it."""

    path: str
    modality: ModalityChoice | None = None


@dataclass(slots=True)
class _Group:
    """Entries until ``position``: crops with their bytes, and entries that failed."""

    position: Position = None
    crops: list[Arrival[bytes]] = field(default_factory=list)
    failed: list[tuple[str, ServiceError]] = field(default_factory=list)
    sifted: SiftedArrivals[bytes] = field(default_factory=SiftedArrivals)
    outcome: Future[Outcome] = field(default_factory=Future)


def import_images(
    context: Context, source: Source, target: ImportTarget, engine: Engine, labels: Labels, max_bytes: int
) -> None:
    """Add every file of ``source``, from the job's cursor on.

    An item that is stored with the same content is not embedded again: it is skipped, or its metadata is updated.

    Raises:
        ArchiveRejected: the source cannot be used, or not to its end; what was stored stays.
        ServiceError: an error that concerns more than single files.
    """
    arguments = (source, context.folder / "manifest.db", context.job.cursor, max_bytes)
    with closing(
        read_in_process("server.jobs.imports.reading:read_images", *arguments, check=context.check)
    ) as messages:
        _record(context, source.start, next(messages), labels)
        groups = _groups(messages, labels)
        details = {Detail.WARNINGS} | ({Detail.THUMBNAIL} if target.gallery().thumbnails else set())
        with closing(_embedded(groups, target, engine, details)) as embedded:
            for group in embedded:
                _store(context, target, group)


def _record(context: Context, start: Position, survey: Survey, labels: Labels) -> None:
    context.set_total(survey.files + len(survey.unused_rows), ignored=survey.ignored)
    if survey.unused_rows and context.job.cursor is None:
        context.advance(start, failed=[(row.place, _unused(row, labels.zone)) for row in survey.unused_rows])


def _unused(row: ManifestRow, zone: tzinfo | None) -> ServiceError:
    try:
        fields = _validated(row, zone)
    except ValidationError as error:
        return InvalidRequest(field_errors(error.errors()))
    except InvalidRequest as error:
        return error
    return EntryRejected(f"there is no file {display_name(fields.path)}")


def _row_fields(row: ManifestRow, zone: tzinfo | None) -> dict[str, Any]:
    try:
        return _validated(row, zone).model_dump(exclude={"path"}, exclude_none=True, exclude_defaults=True)
    except ValidationError as error:
        raise InvalidRequest(field_errors(error.errors(), within=row.place)) from None


def _validated(row: ManifestRow, zone: tzinfo | None) -> _Row:
    fields = json.loads(row.fields)
    return _Row.model_validate(normalized(fields, zone) if isinstance(fields, dict) else fields)


def _groups(messages: Iterator[FileRead | FileFailed], labels: Labels) -> Iterator[_Group]:
    group, size = _Group(), 0
    for message in messages:
        group.position = message.position
        try:
            if isinstance(message, FileFailed):
                raise message.error
            fields = labels.fields(message.path, message.row)
        except ServiceError as error:
            group.failed.append((message.path, error))
        else:
            group.crops.append(_arrival(message, fields))
            size += len(message.data)
        if len(group.crops) + len(group.failed) == GROUP or size >= _GROUP_BYTES:
            yield group
            group, size = _Group(), 0
    if group.position is not None:
        yield group


def _arrival(file: FileRead, fields: ItemFields) -> Arrival[bytes]:
    content = sha256(file.data).hexdigest()
    item = partial(fields.item, content=content)
    return Arrival(file.path, fields.id or "", content, fields.modality.stated, item, file.data)


def _embedded(
    groups: Iterator[_Group], target: ImportTarget, engine: Engine, details: Collection[Detail]
) -> Generator[_Group, None, None]:
    """Yield the groups while the next ones are embedded."""
    waiting: deque[_Group] = deque()
    try:
        for group in groups:
            unsettled = {crop.id: crop.content for other in waiting for crop in other.sifted.new}
            group.sifted = target.sift(group.crops, unsettled)
            new = group.sifted.new
            group.outcome = engine.submit(
                [crop.payload for crop in new], [crop.modality for crop in new], Priority.IMPORT, details
            )
            waiting.append(group)
            if len(waiting) > _AHEAD:
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()
    finally:
        for group in waiting:
            group.outcome.cancel()


def _store(context: Context, target: ImportTarget, group: _Group) -> None:
    items: list[NewItem] = []
    for crop, result in zip(group.sifted.new, context.wait(group.outcome).results, strict=True):
        if isinstance(result, Embedding):
            item = crop.item(result.modality)
            items.append(NewItem(replace(item, warnings=result.warnings), result.vector, result.thumbnail))
        else:
            group.failed.append((crop.name, result))
    if items:
        target.put(items)
    target.relabel(group.sifted.changes)
    context.advance(
        group.position,
        done=len(items) + len(group.sifted.changes),
        skipped=group.sifted.skipped,
        replaced=group.sifted.replaced,
        failed=group.failed,
    )
