"""The reference semantics of a filter. SQL (``storage.mapping``) and NumPy (``gallery.columns``) must agree with it."""

from __future__ import annotations

from collections.abc import Mapping

from server.domain.types import Filter, Item, Scalar

__all__ = ["AttributeKey", "attribute_key", "has_any_attribute", "has_attributes", "matches"]

AttributeKey = tuple[str, bool, Scalar]


def attribute_key(name: str, value: Scalar) -> AttributeKey:
    """Return a key that is equal for attributes that are equal as JSON: 1 and 1.0 are, 1 and true are not."""
    return name, isinstance(value, bool), value


def has_attributes(attributes: Mapping[str, Scalar], required: Mapping[str, Scalar]) -> bool:
    """Return whether the attributes contain all ``required`` ones with their values."""
    return all(_has(attributes, name, value) for name, value in required.items())


def has_any_attribute(attributes: Mapping[str, Scalar], unwanted: Mapping[str, Scalar]) -> bool:
    """Return whether the attributes contain one of the unwanted ones with its value."""
    return any(_has(attributes, name, value) for name, value in unwanted.items())


def matches(item: Item, where: Filter) -> bool:
    """Return whether ``item`` passes ``where``."""
    timed = where.captured_from is not None or where.captured_to is not None
    return not (
        (where.modality is not None and item.modality is not where.modality)
        or (where.ids and item.id not in where.ids)
        or (where.exclude_ids and item.id in where.exclude_ids)
        or (where.cameras and item.camera not in where.cameras)
        or (where.exclude_cameras and item.camera in where.exclude_cameras)
        or (where.identities and item.identity not in where.identities)
        or (where.exclude_identities and item.identity in where.exclude_identities)
        or (timed and item.captured_at is None)
        or (item.captured_at and where.captured_from and item.captured_at < where.captured_from)
        or (item.captured_at and where.captured_to and item.captured_at >= where.captured_to)
        or not has_attributes(item.attributes, where.attributes)
        or has_any_attribute(item.attributes, where.exclude_attributes)
        or (where.warnings and not where.warnings & item.warnings)
        or (where.exclude_warnings and where.exclude_warnings & item.warnings)
    )


def _has(attributes: Mapping[str, Scalar], name: str, value: Scalar) -> bool:
    return name in attributes and attribute_key(name, attributes[name]) == attribute_key(name, value)
