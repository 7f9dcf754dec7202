"""Between the rows of the database and what they mean."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from sqlalchemy import BigInteger, BindParameter, ColumnElement, Row, Select, cast, or_, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import GenericFunction

from models.card import Modality
from server.gallery import tables
from server.gallery.filters import has_any_attribute, has_attributes
from server.gallery.moments import from_micros, to_micros
from server.gallery.protocol import ITEM_CHANGES
from server.gallery.types import CropWarning, Erasure, Filter, Gallery, Item, Scalar, VectorType

__all__ = [
    "among",
    "among_numbers",
    "conditions",
    "passes",
    "to_columns",
    "to_erasure",
    "to_gallery",
    "to_item",
    "to_record",
]


class _JsonEach(GenericFunction[Any]):
    """The members of a JSON array, as rows."""

    name = "json_each"
    inherit_cache = True


@compiles(_JsonEach, "postgresql")
def _each_in_postgresql(element: _JsonEach, compiler: SQLCompiler, **options: Any) -> str:
    return f"json_array_elements_text(CAST({compiler.process(element.clauses, **options)} AS JSON))"


def among(values: Collection[str] | BindParameter[str]) -> Select[Any]:
    """The values as a subquery for ``in_``: one parameter, a JSON array, however many there are."""
    listed = values if isinstance(values, BindParameter) else json.dumps(list(values))
    return select(_JsonEach(listed).table_valued("value").c.value)


def among_numbers(values: BindParameter[str]) -> Select[Any]:
    """The same for whole numbers."""
    return select(cast(_JsonEach(values).table_valued("value").c.value, BigInteger))


def conditions(where: Filter) -> Iterator[ColumnElement[bool]]:
    """What SQL decides of a filter: all but the attributes, whose JSON every database compares in its own way."""
    items = tables.items.c
    if where.modality is not None:
        yield items.modality == where.modality.value
    if where.cameras:
        yield items.camera.in_(among(where.cameras))
    if where.exclude_cameras:
        yield or_(items.camera.is_(None), items.camera.not_in(among(where.exclude_cameras)))
    if where.identities:
        yield items.identity.in_(among(where.identities))
    if where.exclude_identities:
        yield or_(items.identity.is_(None), items.identity.not_in(among(where.exclude_identities)))
    if where.captured_from is not None:
        yield items.captured_at >= to_micros(where.captured_from)
    if where.captured_to is not None:
        yield items.captured_at < to_micros(where.captured_to)
    if where.warnings:
        yield items.warnings.bitwise_and(CropWarning.to_bits(where.warnings)) != 0
    if where.exclude_warnings:
        yield items.warnings.bitwise_and(CropWarning.to_bits(where.exclude_warnings)) == 0


def passes(attributes: Mapping[str, Scalar], where: Filter) -> bool:
    """What ``conditions`` leaves to Python."""
    return has_attributes(attributes, where.attributes) and not has_any_attribute(attributes, where.exclude_attributes)


def to_gallery(row: Row[Any]) -> Gallery:
    """A row of ``galleries``."""
    return Gallery(
        name=row.name,
        model=row.model,
        fingerprint=row.fingerprint,
        dimension=row.dimension,
        created_at=from_micros(row.created_at),
        items=row.items,
        description=row.description,
        retention_days=row.retention_days,
        vector_type=VectorType(row.vector_type),
        thumbnails=row.thumbnails,
    )


def to_item(row: Row[Any]) -> Item:
    """A row of ``items``."""
    return Item(
        id=row.id,
        modality=Modality(row.modality),
        identity=row.identity,
        camera=row.camera,
        captured_at=None if row.captured_at is None else from_micros(row.captured_at),
        attributes=row.attributes,
        warnings=CropWarning.from_bits(row.warnings),
        content=row.content,
    )


def to_erasure(row: Row[Any]) -> Erasure:
    """A row of ``erasures``."""
    return Erasure(row.id, row.gallery, from_micros(row.at), row.key_id, row.detail)


def to_record(item: Item) -> dict[str, object]:
    """An item's own columns of ``items``."""
    changeable = {name: getattr(item, name) for name in ITEM_CHANGES}
    return {
        "id": item.id,
        "modality": item.modality.value,
        "warnings": CropWarning.to_bits(item.warnings),
        "content": item.content,
        **to_columns(changeable),
    }


def to_columns(changes: Mapping[str, Any]) -> dict[str, object]:
    """Changes of an item as columns."""
    columns = dict(changes)
    if columns.get("captured_at") is not None:
        columns["captured_at"] = to_micros(columns["captured_at"])
    if "attributes" in columns:
        columns["attributes"] = dict(columns["attributes"])
    return columns
