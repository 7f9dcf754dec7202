"""Service errors, independent of HTTP. ``server.api.errors`` maps them to problem documents."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = [
    "AliasExists",
    "AliasNotFound",
    "ApiKeyNotFound",
    "ApiKeyRejected",
    "ArchiveRejected",
    "BodyMemoryFull",
    "DatabaseUnavailable",
    "DeadlineExceeded",
    "EmbeddingFailed",
    "EntryRejected",
    "ErasureNotFound",
    "Forbidden",
    "GalleryExists",
    "GalleryNotFound",
    "HeaderTooLarge",
    "ImageRejected",
    "ImageTooLarge",
    "ImageTypeUnsupported",
    "ItemNotFound",
    "JobNotFound",
    "LastAdminKey",
    "ModelMismatch",
    "ModelNotFound",
    "NotReady",
    "Overloaded",
    "RateLimited",
    "RequestTooSlow",
    "ServiceError",
    "StartupError",
    "StorageFull",
    "ThumbnailsMissing",
    "TooManyConnections",
    "TooManyFailures",
    "Unauthorized",
]


class StartupError(Exception):
    """The server cannot start because of its data or this machine. Never part of an HTTP response."""


class ServiceError(Exception):
    """Base of all expected errors: requests that the service refuses or cannot serve."""


class GalleryNotFound(ServiceError):
    """There is no gallery of that name, or none that the caller may see."""

    def __init__(self, gallery: str) -> None:
        super().__init__(gallery)
        self.gallery = gallery


class GalleryExists(ServiceError):
    """A gallery of that name exists already."""

    def __init__(self, gallery: str) -> None:
        super().__init__(gallery)
        self.gallery = gallery


class AliasExists(ServiceError):
    """An alias of that name exists already."""

    def __init__(self, alias: str) -> None:
        super().__init__(alias)
        self.alias = alias


class AliasNotFound(ServiceError):
    """There is no alias of that name."""

    def __init__(self, alias: str) -> None:
        super().__init__(alias)
        self.alias = alias


class ErasureNotFound(ServiceError):
    """There is no receipt of that id."""

    def __init__(self, erasure: str) -> None:
        super().__init__(erasure)
        self.erasure = erasure


class ItemNotFound(ServiceError):
    """The gallery has no item of that id, or the item has no image where one was requested."""

    def __init__(self, gallery: str, item: str) -> None:
        super().__init__(gallery, item)
        self.gallery, self.item = gallery, item


class ModelNotFound(ServiceError):
    """No loaded model has that name."""

    def __init__(self, model: str, known: Sequence[str]) -> None:
        super().__init__(model)
        self.model, self.known = model, tuple(known)


class ModelMismatch(ServiceError):
    """The gallery is bound to another model fingerprint or dimension than the given one."""

    def __init__(self, gallery: str, expected: str, found: str) -> None:
        super().__init__(gallery, expected, found)
        self.gallery, self.expected, self.found = gallery, expected, found


class ImageRejected(ServiceError):
    """The upload is not an acceptable image. ``reason`` is written by the server and safe to show."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ImageTooLarge(ImageRejected):
    """The upload has more bytes or pixels than this server accepts."""


class ImageTypeUnsupported(ImageRejected):
    """The content of the upload has none of the supported formats."""


class EmbeddingFailed(ServiceError):
    """The model failed on this image; the others of its batch were embedded."""


class Unauthorized(ServiceError):
    """There is no key, or it is unknown."""


class Forbidden(ServiceError):
    """The key is valid, but its scopes or galleries do not cover the request."""

    def __init__(self, needed: str) -> None:
        super().__init__(needed)
        self.needed = needed


class ApiKeyNotFound(ServiceError):
    """No API key of that id."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


class ApiKeyRejected(ServiceError):
    """A new key has scopes or galleries that do not exist."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class LastAdminKey(ServiceError):
    """The key cannot be deleted: no other usable key can manage keys."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


class RateLimited(ServiceError):
    """The key has used up its requests; retry after ``retry_after_s`` seconds."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(retry_after_s)
        self.retry_after_s = retry_after_s


class Overloaded(ServiceError):
    """Too many images are in progress; retry after ``retry_after_s`` seconds."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(retry_after_s)
        self.retry_after_s = retry_after_s


class TooManyFailures(ServiceError):
    """Too many requests from this address had no valid API key; retry after ``retry_after_s`` seconds."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(retry_after_s)
        self.retry_after_s = retry_after_s


class DeadlineExceeded(ServiceError):
    """The request was not served within ``limit_s`` seconds."""

    def __init__(self, limit_s: float) -> None:
        super().__init__(limit_s)
        self.limit_s = limit_s


class BodyMemoryFull(ServiceError):
    """The bodies of all requests together take as much memory as they may."""


class TooManyConnections(ServiceError):
    """There are as many connections as there may be."""


class RequestTooSlow(ServiceError):
    """The client sends its request too slowly. ``reason`` is written by the server and safe to show."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class HeaderTooLarge(ServiceError):
    """The header of a request has more than ``limit`` bytes."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.limit = limit


class NotReady(ServiceError):
    """A part of the service has failed or is still starting."""

    def __init__(self, reasons: Sequence[str]) -> None:
        super().__init__(*reasons)
        self.reasons = tuple(reasons)


class DatabaseUnavailable(NotReady):
    """The connection to the database is lost, or the database could not finish a transaction; it may be repeated."""

    def __init__(self, reason: str = "the database is not available") -> None:
        super().__init__([reason])


class StorageFull(ServiceError):
    """The disk has no space for the write; nothing was stored."""


class ThumbnailsMissing(ServiceError):
    """A gallery cannot be re-embedded: ``items`` of its items have no thumbnail."""

    def __init__(self, gallery: str, items: int) -> None:
        super().__init__(gallery, items)
        self.gallery, self.items = gallery, items


class JobNotFound(ServiceError):
    """There is no job of that id, or none that the caller may see."""

    def __init__(self, job: str) -> None:
        super().__init__(job)
        self.job = job


class ArchiveRejected(ServiceError):
    """An archive or file of entries cannot be read to its end. ``reason`` is written by the server and safe to show."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class EntryRejected(ServiceError):
    """One entry of an archive or file is rejected. ``reason`` is written by the server and safe to show."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
