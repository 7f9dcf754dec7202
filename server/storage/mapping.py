"""Conversion between database rows and domain types, and of filters to SQL conditions."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from sqlalchemy import BigInteger, BindParameter, ColumnElement, Row, Select, cast, or_, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import GenericFunction

from models.card import Modality
from server.domain.filters import has_any_attribute, has_attributes
from server.domain.types import CropWarning, Erasure, Filter, Gallery, Item, Scalar, VectorType
from server.storage import tables
from server.storage.protocol import ITEM_CHANGES

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
    """The elements of a JSON array as rows."""

    name = "json_each"
    inherit_cache = True


@compiles(_JsonEach, "postgresql")
def _each_in_postgresql(element: _JsonEach, compiler: SQLCompiler, **options: Any) -> str:
    return f"json_array_elements_text(CAST({compiler.process(element.clauses, **options)} AS JSON))"


def among(values: Collection[str] | BindParameter[str]) -> Select[Any]:
    """Return the values as a subquery for ``in_``: one parameter, a JSON array, for any number of values."""
    listed = values if isinstance(values, BindParameter) else json.dumps(list(values))
    return select(_JsonEach(listed).table_valued("value").c.value)


def among_numbers(values: BindParameter[str]) -> Select[Any]:
    """Return the same subquery for integers."""
    return select(cast(_JsonEach(values).table_valued("value").c.value, BigInteger))


def conditions(where: Filter) -> Iterator[ColumnElement[bool]]:
    """Yield a filter's SQL conditions: all but attributes, whose JSON every database compares differently."""
    items = tables.items.c
    if where.modality is not None:
        yield items.modality == where.modality.value
    if where.ids:
        yield items.id.in_(among(where.ids))
    if where.exclude_ids:
        yield items.id.not_in(among(where.exclude_ids))
    if where.cameras:
        yield items.camera.in_(among(where.cameras))
    if where.exclude_cameras:
        yield or_(items.camera.is_(None), items.camera.not_in(among(where.exclude_cameras)))
    if where.identities:
        yield items.identity.in_(among(where.identities))
    if where.exclude_identities:
        yield or_(items.identity.is_(None), items.identity.not_in(among(where.exclude_identities)))
    if where.captured_from is not None:
        yield items.captured_at >= where.captured_from
    if where.captured_to is not None:
        yield items.captured_at < where.captured_to
    if where.warnings:
        yield items.warnings.bitwise_and(CropWarning.to_bits(where.warnings)) != 0
    if where.exclude_warnings:
        yield items.warnings.bitwise_and(CropWarning.to_bits(where.exclude_warnings)) == 0


def passes(attributes: Mapping[str, Scalar], where: Filter) -> bool:
    """Return whether attributes pass the part of a filter that ``conditions`` omits."""
    return has_attributes(attributes, where.attributes) and not has_any_attribute(attributes, where.exclude_attributes)


def to_gallery(row: Row[Any]) -> Gallery:
    """Convert a row of ``galleries``."""
    return Gallery(
        name=row.name,
        model=row.model,
        fingerprint=row.fingerprint,
        dimension=row.dimension,
        created_at=row.created_at,
        items=row.items,
        description=row.description,
        retention_days=row.retention_days,
        vector_type=VectorType(row.vector_type),
        thumbnails=row.thumbnails,
    )


def to_item(row: Row[Any]) -> Item:
    """Convert a row of ``items``."""
    return Item(
        id=row.id,
        modality=Modality(row.modality),
        identity=row.identity,
        camera=row.camera,
        captured_at=row.captured_at,
        attributes=row.attributes,
        warnings=CropWarning.from_bits(row.warnings),
        content=row.content,
    )


def to_erasure(row: Row[Any]) -> Erasure:
    """Convert a row of ``erasures``."""
    return Erasure(row.id, row.gallery, row.at, row.key_id, row.detail)


def to_record(item: Item) -> dict[str, object]:
    """Return the columns of ``items`` that an item determines."""
    changeable = {name: getattr(item, name) for name in ITEM_CHANGES}
    return {
        "id": item.id,
        "modality": item.modality.value,
        "warnings": CropWarning.to_bits(item.warnings),
        "content": item.content,
        **to_columns(changeable),
    }


def to_columns(changes: Mapping[str, Any]) -> dict[str, object]:
    """Convert changes of an item to columns."""
    columns = dict(changes)
    if "attributes" in columns:
        columns["attributes"] = dict(columns["attributes"])
    return columns
