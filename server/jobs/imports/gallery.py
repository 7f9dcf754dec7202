"""The gallery that an import fills, and what of the import it holds already."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from server.errors import GalleryNotFound
from server.gallery.filters import has_attributes
from server.gallery.service import Galleries
from server.gallery.types import Gallery, Item, NewItem

__all__ = ["Target", "news_of"]

_FACTS = ("identity", "camera", "captured_at")


class Target:
    """The gallery ``name`` as it was created at ``created_at``: one that was deleted and made anew is another."""

    def __init__(self, galleries: Galleries, name: str, created_at: datetime) -> None:
        self._galleries, self.name, self._created_at = galleries, name, created_at

    def gallery(self) -> Gallery:
        """The gallery. Raises ``GalleryNotFound``."""
        gallery = self._galleries.get(self.name)
        if gallery.created_at != self._created_at:
            raise GalleryNotFound(self.name)
        return gallery

    def held(self, contents: Mapping[str, str]) -> dict[str, Item]:
        """Of items by id and the SHA-256 of their content, those that are there with that very content."""
        there = self._galleries.named(self.name, contents.keys())
        return {id: item for id, item in there.items() if item.content == contents[id]}

    def put(self, items: Iterable[NewItem]) -> None:
        """Store items, all or none. Raises what ``Galleries.put`` raises, ``GalleryNotFound`` as ``gallery``."""
        self._galleries.put(self.name, list(items), fingerprint=self.gallery().fingerprint)

    def relabel(self, changes: Mapping[str, Mapping[str, object]]) -> None:
        """Change what is known of items, by id; their vectors and images stay."""
        for id, changed in changes.items():
            self._galleries.update_item(self.name, id, changed)


def news_of(told: Item, there: Item) -> dict[str, object]:
    """What is told of an item that is there otherwise. What is not told stays as it is: somebody may have added it."""
    news = {name: getattr(told, name) for name in _FACTS if getattr(told, name) not in (None, getattr(there, name))}
    same = len(told.attributes) == len(there.attributes) and has_attributes(there.attributes, told.attributes)
    return news | ({"attributes": told.attributes} if told.attributes and not same else {})
