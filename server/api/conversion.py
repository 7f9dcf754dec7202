"""Conversion between domain objects and the schemas of the wire format."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import TypeVar

from models.card import Modality
from server.domain import types as domain
from server.storage.api_keys import ApiKey
from vireid.schemas.erasures import Receipt
from vireid.schemas.galleries import GalleryDetails
from vireid.schemas.items import ItemDetails, ItemFilter, ItemSummary, NewItemFields
from vireid.schemas.keys import KeyDetails, KeyLimits
from vireid.schemas.search import SearchFilter

__all__ = [
    "from_item_fields",
    "from_item_filter",
    "from_search_filter",
    "to_gallery_details",
    "to_item_details",
    "to_item_summary",
    "to_key_details",
    "to_receipt",
]

Value = TypeVar("Value", bound=str)


def to_gallery_details(gallery: domain.Gallery) -> GalleryDetails:
    """Convert a gallery."""
    return GalleryDetails.model_validate(gallery, from_attributes=True)


def to_item_summary(item: domain.Item) -> ItemSummary:
    """Convert an item, without its checksum."""
    return ItemSummary(
        id=item.id,
        identity=item.identity,
        modality=item.modality,
        camera=item.camera,
        captured_at=item.captured_at,
        attributes=item.attributes,
        warnings=sorted(item.warnings),
    )


def to_item_details(item: domain.Item) -> ItemDetails:
    """Convert an item, with its checksum."""
    return ItemDetails(**dict(to_item_summary(item)), content_sha256=item.content)


def to_receipt(erasure: domain.Erasure) -> Receipt:
    """Convert the record of an erasure."""
    return Receipt.model_validate({"id": erasure.id, "gallery": erasure.gallery, "at": erasure.at, **erasure.detail})


def to_key_details(key: ApiKey) -> KeyDetails:
    """Convert an API key."""
    return KeyDetails(
        id=key.id,
        name=key.name,
        scopes=sorted(key.scopes),
        galleries=None if key.galleries is None else sorted(key.galleries),
        created_at=key.created_at,
        expires_at=key.expires_at,
        last_used_at=key.last_used_at,
        old_secret_expires_at=key.old_secret_expires_at,
        limits=KeyLimits(requests_per_minute=key.requests_per_minute),
    )


def from_item_fields(
    fields: NewItemFields,
    modality: Modality,
    *,
    content: str | None = None,
    warnings: frozenset[domain.CropWarning] = frozenset(),
) -> domain.Item:
    """Convert the metadata of an item to add; an id is generated where the caller gave none."""
    return domain.Item(
        fields.id or uuid.uuid4().hex,
        modality,
        fields.identity,
        fields.camera,
        fields.captured_at,
        fields.attributes,
        warnings,
        content,
    )


def from_item_filter(filter: ItemFilter) -> domain.Filter:
    """Convert the filter of a list of items or of an erasure."""
    return domain.Filter(
        modality=filter.modality,
        cameras=frozenset(filter.camera) or None,
        identities=frozenset(filter.identity) or None,
        captured_from=filter.captured_from,
        captured_to=filter.captured_to,
        warnings=_warnings(filter.warning) or None,
    )


def from_search_filter(filter: SearchFilter, modality: Modality | None) -> domain.Filter:
    """Convert the filter of a search; ``modality`` replaces the filter's own, which may be relative to the query."""
    return domain.Filter(
        modality=modality,
        cameras=_set(filter.cameras),
        exclude_cameras=_set(filter.exclude_cameras),
        identities=_set(filter.identities),
        exclude_identities=_set(filter.exclude_identities),
        captured_from=filter.captured_from,
        captured_to=filter.captured_to,
        attributes=filter.attributes,
        exclude_attributes=filter.exclude_attributes,
        warnings=_warnings(filter.warnings),
        exclude_warnings=_warnings(filter.exclude_warnings),
    )


def _set(values: Iterable[Value] | None) -> frozenset[Value] | None:
    return None if values is None else frozenset(values)


def _warnings(values: Iterable[str] | None) -> frozenset[domain.CropWarning] | None:
    return None if values is None else frozenset(map(domain.CropWarning, values))
