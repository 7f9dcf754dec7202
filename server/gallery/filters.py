"""What a filter means, in plain Python. SQL (``store``) and NumPy (``columns``) must say the same."""

from __future__ import annotations

from collections.abc import Mapping

from server.gallery.types import Filter, Item, Scalar

__all__ = ["AttributeKey", "attribute_key", "has_attributes", "matches"]

AttributeKey = tuple[str, bool, Scalar]


def attribute_key(name: str, value: Scalar) -> AttributeKey:
    """Equal for attributes that are equal as JSON: 1 and 1.0 are, 1 and true are not."""
    return name, isinstance(value, bool), value


def has_attributes(attributes: Mapping[str, Scalar], wanted: Mapping[str, Scalar]) -> bool:
    """Whether every wanted attribute is there with that value."""
    return all(
        name in attributes and attribute_key(name, attributes[name]) == attribute_key(name, value)
        for name, value in wanted.items()
    )


def matches(item: Item, where: Filter) -> bool:
    """Whether ``item`` passes ``where``."""
    timed = where.captured_from is not None or where.captured_to is not None
    return not (
        (where.modality is not None and item.modality is not where.modality)
        or (where.cameras and item.camera not in where.cameras)
        or (where.exclude_cameras and item.camera in where.exclude_cameras)
        or (where.identities and item.identity not in where.identities)
        or (timed and item.captured_at is None)
        or (item.captured_at and where.captured_from and item.captured_at < where.captured_from)
        or (item.captured_at and where.captured_to and item.captured_at >= where.captured_to)
        or not has_attributes(item.attributes, where.attributes)
    )
