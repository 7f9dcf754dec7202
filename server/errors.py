"""What can go wrong, without a word about HTTP: fields, not prose. ``server.api.errors`` turns them into problems."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = [
    "AliasExists",
    "AliasNotFound",
    "ArchiveRejected",
    "BadKey",
    "EmbeddingFailed",
    "EntryRejected",
    "ErasureNotFound",
    "Forbidden",
    "GalleryExists",
    "GalleryNotFound",
    "ImageRejected",
    "ImageTooLarge",
    "ImageTypeUnsupported",
    "ItemNotFound",
    "JobNotFound",
    "KeyNotFound",
    "ModelMismatch",
    "ModelNotFound",
    "NotReady",
    "Overloaded",
    "ServiceError",
    "StorageFull",
    "ThumbnailsMissing",
    "Unauthorized",
]


class ServiceError(Exception):
    """Base of everything the service refuses or fails to do on purpose."""


class GalleryNotFound(ServiceError):
    """No gallery of that name, or none that the caller may see."""

    def __init__(self, gallery: str) -> None:
        super().__init__(gallery)
        self.gallery = gallery


class GalleryExists(ServiceError):
    """A gallery of that name is there already."""

    def __init__(self, gallery: str) -> None:
        super().__init__(gallery)
        self.gallery = gallery


class AliasExists(ServiceError):
    """A gallery was to get the name of an alias."""

    def __init__(self, alias: str) -> None:
        super().__init__(alias)
        self.alias = alias


class AliasNotFound(ServiceError):
    """No alias of that name."""

    def __init__(self, alias: str) -> None:
        super().__init__(alias)
        self.alias = alias


class ErasureNotFound(ServiceError):
    """No receipt of that id."""

    def __init__(self, erasure: str) -> None:
        super().__init__(erasure)
        self.erasure = erasure


class ItemNotFound(ServiceError):
    """The gallery has no item of that id (or the item has no image, where an image was asked for)."""

    def __init__(self, gallery: str, item: str) -> None:
        super().__init__(gallery, item)
        self.gallery, self.item = gallery, item


class ModelNotFound(ServiceError):
    """No loaded model has that name."""

    def __init__(self, model: str, known: Sequence[str]) -> None:
        super().__init__(model)
        self.model, self.known = model, tuple(known)


class ModelMismatch(ServiceError):
    """The gallery is bound to another model fingerprint or another dimension than the one at hand."""

    def __init__(self, gallery: str, expected: str, found: str) -> None:
        super().__init__(gallery, expected, found)
        self.gallery, self.expected, self.found = gallery, expected, found


class ImageRejected(ServiceError):
    """The upload is not an image this server takes. ``reason`` is ours, safe to show."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ImageTooLarge(ImageRejected):
    """The upload has more bytes or more pixels than this server takes."""


class ImageTypeUnsupported(ImageRejected):
    """The upload is in none of the formats this server takes, whatever its name says."""


class EmbeddingFailed(ServiceError):
    """The model failed on this one image; the others of its batch were embedded."""


class Unauthorized(ServiceError):
    """No key, or one that nobody was given."""


class Forbidden(ServiceError):
    """The key is real and its scopes or galleries do not cover the request."""

    def __init__(self, needed: str) -> None:
        super().__init__(needed)
        self.needed = needed


class KeyNotFound(ServiceError):
    """No API key of that id."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


class BadKey(ServiceError):
    """A key was asked for with scopes or galleries that do not exist."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Overloaded(ServiceError):
    """Too many images in flight. Come back after ``retry_after_s`` seconds."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(retry_after_s)
        self.retry_after_s = retry_after_s


class NotReady(ServiceError):
    """A part of the service has failed or is still starting."""

    def __init__(self, reasons: Sequence[str]) -> None:
        super().__init__(*reasons)
        self.reasons = tuple(reasons)


class StorageFull(ServiceError):
    """The disk of the data directory has no room for the write; nothing of it was stored."""


class ThumbnailsMissing(ServiceError):
    """A gallery cannot be embedded anew: so many of its items have no thumbnail."""

    def __init__(self, gallery: str, items: int) -> None:
        super().__init__(gallery, items)
        self.gallery, self.items = gallery, items


class JobNotFound(ServiceError):
    """No job of that id, or none that the caller may see."""

    def __init__(self, job: str) -> None:
        super().__init__(job)
        self.job = job


class ArchiveRejected(ServiceError):
    """An upload of many entries cannot be used as a whole, or not beyond some point. ``reason`` is ours."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class EntryRejected(ServiceError):
    """One entry of such an upload is not taken. ``reason`` is ours, safe to show."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
