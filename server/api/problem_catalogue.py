"""The catalogue of problem types: what each means, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from server.api.errors import FRAMEWORK_PROBLEMS, PROBLEMS

__all__ = ["CATALOGUE", "ProblemEntry"]


@dataclass(frozen=True, slots=True)
class ProblemEntry:
    """A problem type: last part of its ``type``, HTTP statuses, title, cause and remedy."""

    slug: str
    statuses: tuple[int, ...]
    title: str
    cause: str
    remedy: str


_CAUSES: Mapping[str, tuple[str, str]] = {
    "alias-exists": (
        "An alias has the name of the gallery to be created.",
        "Choose another name, or remove the alias.",
    ),
    "alias-not-found": ("There is no alias of this name.", "List the aliases with `GET /v1/aliases`."),
    "archive-rejected": (
        "The archive or file of entries is damaged, of another kind, or exceeds a limit of the server.",
        "Read the detail; make the archive again, or split it.",
    ),
    "bad-key": (
        "The options of the API key contradict each other, or name a gallery that does not exist.",
        "Correct the option that the detail names.",
    ),
    "body-memory-full": (
        "The bodies of all requests together take as much memory as the server allows.",
        "Wait for `Retry-After` and send the request again; nothing was stored.",
    ),
    "body-too-large": (
        "The body has more bytes than the server accepts.",
        "Send fewer images in a request; `GET /v1/limits` has the limits.",
    ),
    "body-type-unsupported": (
        "The operation does not read bodies of this `Content-Type`.",
        "Send one of the types that the detail names.",
    ),
    "content-encoding-unsupported": (
        "The body is compressed by a method that the server does not know.",
        "Send it uncompressed, or with gzip or deflate.",
    ),
    "deadline-exceeded": (
        "The request waited or was processed for longer than the server allows, and was dropped.",
        "Try again when the server has less to do; nothing was stored.",
    ),
    "embedding-failed": (
        "The model failed on this image.",
        "Try again; if it happens again, report the image and the request id to the operator.",
    ),
    "entry-rejected": (
        "One entry of an import cannot be stored: its fields or its content are invalid.",
        "Correct the entry that the detail names, and run the import again; stored items are skipped.",
    ),
    "erasure-not-found": ("There is no receipt of this id, or the key does not cover its gallery.", "List receipts."),
    "forbidden": (
        "The key is valid, but its scopes or galleries do not cover the request. Without keys: the request does not "
        "come from this machine.",
        "Use a key that has what the detail names, or ask an administrator for one.",
    ),
    "gallery-exists": (
        "A gallery of this name exists already.",
        "Use it, or choose another name. After a retry of a request: the first one has succeeded.",
    ),
    "gallery-not-found": (
        "There is no gallery or alias of this name.",
        "List the galleries with `GET /v1/galleries`; names are case-sensitive.",
    ),
    "image-rejected": (
        "The file is damaged, empty or not an acceptable image.",
        "Open the file with an image viewer, and send it again as PNG or JPEG.",
    ),
    "image-too-large": (
        "The image has more bytes or pixels than the server accepts.",
        "Send the crop of one person, not the whole frame; `GET /v1/limits` has the limits.",
    ),
    "image-type-unsupported": (
        "The file has none of the supported image formats; its name does not matter.",
        "Convert it to PNG or JPEG.",
    ),
    "internal": (
        "The server failed unexpectedly.",
        "Give the request id to the operator: the log has the cause under it. A retry may succeed.",
    ),
    "invalid-request": (
        "Fields of the request are missing, unknown, contradictory or out of range.",
        "Correct the fields that `errors` names; each entry says what was expected.",
    ),
    "item-not-found": (
        "The gallery has no item of this id, or no thumbnail of it.",
        "List the items. Items that were added as embeddings have no thumbnail.",
    ),
    "job-not-found": ("There is no job of this id, or the key does not cover its gallery.", "List the jobs."),
    "key-not-found": ("There is no API key of this id.", "List the keys; an id is not a secret and not a name."),
    "last-admin-key": (
        "The key is the last one that can manage keys.",
        "Create another admin key first, or rotate this one.",
    ),
    "header-too-large": ("The header of the request has more bytes than the server accepts.", "Send fewer headers."),
    "malformed": (
        "The request cannot be parsed.",
        "Let an HTTP library build the body and its `Content-Type`; the detail has the place.",
    ),
    "method-not-allowed": ("The path exists, but not with this method.", "See the header `Allow` of the response."),
    "model-mismatch": (
        "The gallery is bound to other weights than the request or the server has.",
        "Use embeddings of the gallery's model, load that model, or re-embed the gallery.",
    ),
    "model-not-found": (
        "No loaded model has this name.",
        "Choose one of `GET /v1/models`, or put the model into the folder of models and restart.",
    ),
    "not-found": ("There is nothing at this path.", "Compare the path with the API reference."),
    "not-ready": (
        "A part of the server has failed, is starting or is shutting down.",
        "Try again after `Retry-After`; `GET /readyz` has the reasons.",
    ),
    "overloaded": (
        "More images are being processed than the server accepts at once.",
        "Wait for `Retry-After` and send the request again; nothing was stored.",
    ),
    "rate-limited": (
        "The API key has used up its requests.",
        "Wait for `Retry-After`; an administrator can change the limits of a key.",
    ),
    "request-too-slow": (
        "The header or the body of the request arrived too slowly.",
        "Check the network; an administrator can change `VIREID_HEADER_TIMEOUT_S` and `VIREID_BODY_TIMEOUT_S`.",
    ),
    "database-unavailable": (
        "The server has lost its connection to PostgreSQL, or PostgreSQL could not finish the transaction.",
        "Wait for the seconds that the Retry-After header names, then send the request again. If it continues, check "
        "PostgreSQL and its connections.",
    ),
    "storage-full": ("The disk of the server is full; nothing was stored.", "Free space on the disk, then try again."),
    "thumbnails-missing": (
        "Items of the gallery have no thumbnail, so that no other model can embed them.",
        "Delete these items or add them again by their images.",
    ),
    "too-many-connections": (
        "The server has as many open connections as it may.",
        "Wait for `Retry-After`; use few connections and keep them open.",
    ),
    "too-many-failures": (
        "Too many requests from this address had no valid API key.",
        "Correct the key, then wait for `Retry-After`.",
    ),
    "too-many-images": (
        "The request has more images than the server accepts in one.",
        "Split it; `GET /v1/limits` has the limit.",
    ),
    "unauthorized": (
        "The request has no API key, or one that is unknown, expired or deleted.",
        "Send `Authorization: Bearer KEY`.",
    ),
    "uploads-failed": (
        "No upload of the request could be used, for different reasons.",
        "Read `errors`, which has the reason of each.",
    ),
}


def _entries() -> Iterator[ProblemEntry]:
    found: dict[str, tuple[set[int], str]] = {}
    for problem in PROBLEMS.values():
        found.setdefault(problem.slug, (set(), problem.title))[0].add(problem.status)
    for status, (slug, title, _) in FRAMEWORK_PROBLEMS.items():
        found.setdefault(slug, (set(), title))[0].add(status)
    for slug, (statuses, title) in sorted(found.items()):
        yield ProblemEntry(slug, tuple(sorted(statuses)), title, *_CAUSES[slug])


CATALOGUE: Mapping[str, ProblemEntry] = {entry.slug: entry for entry in _entries()}
"""Every problem type that the server sends, by the last part of its ``type``."""
