"""The gallery that an import writes to, and what becomes of entries whose id is taken already."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Generic, TypeVar

from models.card import Modality
from models.crop_files import apart_id
from server.domain.errors import ArchiveRejected, GalleryNotFound
from server.domain.filters import has_attributes
from server.domain.types import Gallery, Item, NewItem
from server.gallery.galleries import Galleries

__all__ = ["Arrival", "ImportTarget", "OnConflict", "SiftedArrivals"]

T = TypeVar("T")

_METADATA = ("identity", "camera", "captured_at")


class OnConflict(StrEnum):
    """What becomes of an entry whose id belongs to another image or vector.

    `fail` stops the import, `keep` stores both (the new one under its id and a mark of its content), `replace`
    overwrites the stored one.
    """

    FAIL = "fail"
    KEEP = "keep"
    REPLACE = "replace"


@dataclass(frozen=True, slots=True)
class Arrival(Generic[T]):
    """An entry before it is stored: ``content`` is its digest, ``item`` makes its item of the decided modality."""

    name: str
    id: str
    content: str
    modality: Modality | None
    item: Callable[[Modality], Item]
    payload: T


@dataclass(slots=True)
class SiftedArrivals(Generic[T]):
    """Arrivals to store, metadata of stored items to change, by id, and how many are stored already or overwrite."""

    new: list[Arrival[T]] = field(default_factory=list)
    changes: dict[str, dict[str, object]] = field(default_factory=dict)
    skipped: int = 0
    replaced: int = 0


class ImportTarget:
    """The gallery ``name`` created at ``created_at``; one created later under the same name is a different gallery."""

    def __init__(
        self, galleries: Galleries, name: str, created_at: datetime, on_conflict: OnConflict = OnConflict.FAIL
    ) -> None:
        self._galleries, self.name, self._created_at, self._on_conflict = galleries, name, created_at, on_conflict

    def gallery(self) -> Gallery:
        """Return the gallery. Raises ``GalleryNotFound``."""
        gallery = self._galleries.catalog.get(self.name)
        if gallery.created_at != self._created_at:
            raise GalleryNotFound(self.name)
        return gallery

    def put(self, items: Iterable[NewItem]) -> None:
        """Store all items or none. Raises what the writer raises, and ``GalleryNotFound``."""
        self._galleries.writer.put(self.name, list(items), fingerprint=self.gallery().fingerprint)

    def relabel(self, changes: Mapping[str, Mapping[str, object]]) -> None:
        """Update the metadata of items, by id; vectors and images stay."""
        for id, changed in changes.items():
            self._galleries.writer.update_item(self.name, id, changed)

    def sift(self, arrivals: Sequence[Arrival[T]], unsettled: Mapping[str, str]) -> SiftedArrivals[T]:
        """Compare arrivals with what is stored, and with earlier ones that are not yet: ``unsettled``, content by id.

        Raises:
            ArchiveRejected: an id belongs to other content, and the import is to stop then.
        """
        stored, coming = self._stored({one.id for one in arrivals}), dict(unsettled)
        sifted: SiftedArrivals[T] = SiftedArrivals()
        for one in arrivals:
            if self._in_conflict(one, stored, coming):
                one = self._resolved(one, sifted)
                if one.id not in stored:
                    stored |= self._stored({one.id})
            there = None if one.id in coming else stored.get(one.id)
            if there is None or there.content != one.content or one.modality not in (None, there.modality):
                sifted.new.append(one)
                coming[one.id] = one.content
            elif changes := _changed_fields(one.item(there.modality), there):
                sifted.changes[one.id] = changes
            else:
                sifted.skipped += 1
        return sifted

    def _stored(self, ids: Collection[str]) -> dict[str, Item]:
        return self._galleries.query.items_by_id(self.name, ids)

    def _in_conflict(self, one: Arrival[T], stored: Mapping[str, Item], coming: Mapping[str, str]) -> bool:
        if one.id in coming:
            return coming[one.id] != one.content
        there = stored.get(one.id)  # items of the first versions have no digest; they are taken for the same
        return there is not None and there.content not in (None, one.content)

    def _resolved(self, one: Arrival[T], sifted: SiftedArrivals[T]) -> Arrival[T]:
        if self._on_conflict is OnConflict.FAIL:
            raise ArchiveRejected(
                f"{one.name} would overwrite item {one.id} of gallery {self.name}, whose content is another. Import it "
                "under another path, or set on_conflict: keep stores both, replace overwrites. What was imported "
                "before it stays"
            )
        if self._on_conflict is OnConflict.REPLACE:
            sifted.replaced += 1
            return one
        id, item = apart_id(one.id, one.content), one.item
        return replace(one, id=id, item=lambda modality: replace(item(modality), id=id))


def _changed_fields(new: Item, stored: Item) -> dict[str, object]:
    """Return the metadata that ``new`` states differently. A field that ``new`` leaves empty keeps its stored value."""
    stated = {name: value for name in _METADATA if (value := getattr(new, name)) is not None}
    changes = {name: value for name, value in stated.items() if value != getattr(stored, name)}
    same = len(new.attributes) == len(stored.attributes) and has_attributes(stored.attributes, new.attributes)
    return changes | ({"attributes": new.attributes} if new.attributes and not same else {})
