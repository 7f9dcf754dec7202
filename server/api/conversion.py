"""Conversion between domain objects and the schemas of the wire format."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from models.card import Modality
from server.domain import types as domain
from server.domain.validation import invalid
from server.storage.api_keys import ApiKey
from vireid.schemas.erasures import Receipt
from vireid.schemas.filters import Filter
from vireid.schemas.galleries import GalleryDetails
from vireid.schemas.items import ItemDetails, ItemSummary, NewItemFields
from vireid.schemas.keys import KeyDetails, KeyLimits

__all__ = [
    "from_filter",
    "from_item_fields",
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
    id: str,
    content: str | None = None,
    warnings: frozenset[domain.CropWarning] = frozenset(),
) -> domain.Item:
    """Convert the metadata of an item to add; ``id`` is its id where the caller gave none."""
    return domain.Item(
        fields.id or id,
        modality,
        fields.identity,
        fields.camera,
        fields.captured_at,
        fields.attributes,
        warnings,
        content,
    )


def from_filter(filter: Filter, query: Modality | None = None, *, field: str = "modality") -> domain.Filter:
    """Convert a filter; ``opposite`` is that of the modality of the ``query``.

    Raises:
        InvalidRequest: the modality is ``opposite``, and no query has one; ``field`` names it.
    """
    return domain.Filter(
        modality=_modality(filter.modality, query, field),
        ids=_set(filter.ids),
        exclude_ids=_set(filter.exclude_ids),
        cameras=_set(filter.cameras),
        exclude_cameras=_set(filter.exclude_cameras),
        identities=_set(filter.identities),
        exclude_identities=_set(filter.exclude_identities),
        captured_from=filter.captured_from,
        captured_to=filter.captured_to,
        attributes=filter.attributes,
        exclude_attributes=filter.exclude_attributes,
        warnings=_set(map(domain.CropWarning, filter.warnings or ())),
        exclude_warnings=_set(map(domain.CropWarning, filter.exclude_warnings or ())),
    )


def _modality(choice: str | None, query: Modality | None, field: str) -> Modality | None:
    if choice is None:
        return None
    if choice != "opposite":
        return Modality(choice)
    if query is None:
        raise invalid(field, "cannot be opposite: there is no query, or its images differ in modality")
    return query.opposite


def _set(values: Iterable[Value] | None) -> frozenset[Value] | None:
    return frozenset(values or ()) or None
