"""Crops into a gallery: read, embedded and stored group by group, one group ahead of the other."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from itertools import chain

from pydantic import ValidationError

from server.embedding.batcher import Priority
from server.embedding.engine import Detail, Embedding, Engine, Outcome
from server.errors import ArchiveRejected, ServiceError
from server.faults import InvalidRequest, field_errors
from server.fields import ItemFields, ModalityChoice
from server.gallery.types import NewItem
from server.jobs.imports.entries import Entry, Position, Source
from server.jobs.imports.gallery import Target, news_of
from server.jobs.imports.manifest import MANIFESTS, Manifest
from server.jobs.imports.naming import id_of
from server.jobs.imports.pattern import PathPattern
from server.jobs.runner import Context

__all__ = ["GROUP", "import_images"]

GROUP = 32
"""Entries of a group, which is stored and noted as one: so long a search's audit entry waits for the database, and what
a crash may cost is three groups."""

_GROUP_BYTES = 32 * 2**20
_AHEAD = 2  # groups in work while one is stored


@dataclass(frozen=True, slots=True)
class _Crop:
    """A file to add, with its fields, its id among them, and its SHA-256."""

    name: str
    fields: ItemFields
    id: str
    data: bytes
    content: str


@dataclass(slots=True)
class _Group:
    """Entries until ``position``: crops, and those that failed. What became of the crops is entered later."""

    position: Position = None
    crops: list[_Crop] = field(default_factory=list)
    failed: list[tuple[str, ServiceError]] = field(default_factory=list)
    skipped: int = 0
    changes: dict[str, dict[str, object]] = field(default_factory=dict)
    outcome: Future[Outcome] = field(default_factory=Future)


def import_images(
    context: Context,
    source: Source,
    target: Target,
    engine: Engine,
    *,
    modality: ModalityChoice,
    pattern: PathPattern | None,
    max_bytes: int,
) -> None:
    """Add every file of ``source``, from the job's cursor on.

    Of each field counts what the manifest says, then what the pattern finds, then ``modality`` for all. An item that
    is there with the same content is not embedded again: it is skipped, or what is told anew is changed.

    Raises:
        ArchiveRejected: the source cannot be used, or not to its end; what was stored stays.
        ServiceError: what concerns more than single files.
    """
    with closing(Manifest(context.folder / "manifest.db")) as manifest:
        _survey(context, source, manifest)
        read = partial(_crop, manifest=manifest, pattern=pattern, modality=modality, max_bytes=max_bytes)
        groups = _groups(source.entries(context.job.cursor), read)
        details = {Detail.WARNINGS} | ({Detail.THUMBNAIL} if target.gallery().thumbnails else set())
        with closing(_embedded(groups, target, engine, details)) as embedded:
            for group in embedded:
                _store(context, target, group)


def _survey(context: Context, source: Source, manifest: Manifest) -> None:
    """Go through the source without reading the files: find it sound, count, take the manifest."""
    total = 0
    for entry in source.entries():
        if _is_manifest(entry):
            with entry.open() as file:
                manifest.read(entry.path, file)
        else:
            total += 1
        context.check()
    unused: list[tuple[str, ServiceError]] = []
    if manifest.name is not None:
        for entry in source.entries():
            manifest.use(entry.path)
        unused = manifest.unused()
    context.set_total(total + len(unused))
    if unused and context.job.cursor is None:
        context.advance(source.start, failed=unused)


def _is_manifest(entry: Entry) -> bool:
    return entry.fault is None and entry.path.rpartition("/")[2] in MANIFESTS


def _groups(entries: Iterator[Entry], read: Callable[[Entry], _Crop]) -> Iterator[_Group]:
    group, size = _Group(), 0
    for entry in entries:
        if _is_manifest(entry):
            continue
        group.position = entry.position
        try:
            crop = read(entry)
        except ArchiveRejected:
            raise
        except ServiceError as error:
            group.failed.append((entry.path, error))
        else:
            group.crops.append(crop)
            size += len(crop.data)
        if len(group.crops) + len(group.failed) == GROUP or size >= _GROUP_BYTES:
            yield group
            group, size = _Group(), 0
    if group.position is not None:
        yield group


def _crop(
    entry: Entry, *, manifest: Manifest, pattern: PathPattern | None, modality: ModalityChoice, max_bytes: int
) -> _Crop:
    """Read a file, with its fields. Raises ``ServiceError`` where it cannot be used."""
    data = entry.read(max_bytes)
    found = {"modality": modality, **(pattern.fields(entry.path) if pattern else {})}
    if (row := manifest.row(entry.path)) is not None:
        found |= row.model_dump(exclude={"path"}, exclude_none=True, exclude_defaults=True)
    id = found.setdefault("id", id_of(entry.path))
    try:
        fields = ItemFields.model_validate(found)
    except ValidationError as error:
        raise InvalidRequest(field_errors(error.errors())) from None
    return _Crop(entry.path, fields, str(id), data, sha256(data).hexdigest())


def _embedded(
    groups: Iterator[_Group], target: Target, engine: Engine, details: Collection[Detail]
) -> Generator[_Group, None, None]:
    """The groups with their outcome; others are in work while one is stored."""
    waiting: deque[_Group] = deque()
    try:
        for group in groups:
            _sift(group, target, unsettled=[crop.id for other in waiting for crop in other.crops])
            group.outcome = _embed(engine, group.crops, details)
            waiting.append(group)
            if len(waiting) > _AHEAD:
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()
    finally:
        for group in waiting:
            group.outcome.cancel()


def _sift(group: _Group, target: Target, unsettled: Iterable[str]) -> None:
    """Leave those crops in ``group`` that must be embedded; of ``unsettled`` items it is not known what will be there.

    What an earlier entry of the upload has put under the same id does not count as there, or the last would not win.
    """
    times = Counter(chain(unsettled, (crop.id for crop in group.crops)))
    held = target.held({crop.id: crop.content for crop in group.crops if times[crop.id] == 1})
    crops, group.crops = group.crops, []
    for crop in crops:
        there = held.get(crop.id)
        stated = crop.fields.modality.stated
        if there is None or stated not in (None, there.modality):
            group.crops.append(crop)
        elif news := news_of(crop.fields.item(there.modality), there):
            group.changes[crop.id] = news
        else:
            group.skipped += 1


def _embed(engine: Engine, crops: Sequence[_Crop], details: Collection[Detail]) -> Future[Outcome]:
    data, modalities = [crop.data for crop in crops], [crop.fields.modality.stated for crop in crops]
    return engine.submit(data, modalities, Priority.IMPORT, details)


def _store(context: Context, target: Target, group: _Group) -> None:
    new: list[NewItem] = []
    for crop, result in zip(group.crops, group.outcome.result().results, strict=True):
        if isinstance(result, Embedding):
            item = crop.fields.item(result.modality, content=crop.content, warnings=result.warnings)
            new.append(NewItem(item, result.vector, result.thumbnail))
        else:
            group.failed.append((crop.name, result))
    if new:
        target.put(new)
    target.relabel(group.changes)
    done = len(new) + len(group.changes)
    context.advance(group.position, done=done, skipped=group.skipped, failed=group.failed)
