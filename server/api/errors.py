"""The one table from exceptions to RFC 9457 problems, for our errors and the framework's alike.

Texts for people are written here. An exception's own text, a traceback or a path of this machine never leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from server import errors
from server.api.schemas import FieldError, Problem
from server.api.trace import trace_of
from server.errors import ServiceError
from server.faults import InvalidRequest, field_errors, invalid

__all__ = [
    "PROBLEMS",
    "BodyTypeUnsupported",
    "InvalidRequest",
    "Kind",
    "TooManyImages",
    "UploadsFailed",
    "describe",
    "explained",
    "faults_of",
    "field_errors",
    "framework_response",
    "install",
    "invalid",
    "kind_of",
    "problem_response",
    "problems",
]

MEDIA_TYPE = "application/problem+json"
_TYPE = "urn:vireid:problem:"


class UploadsFailed(ServiceError):
    """Uploads of which none could be used, or of which all are needed: what is wrong, by field."""

    def __init__(self, causes: Mapping[str, ServiceError]) -> None:
        super().__init__(*causes)
        self.causes = dict(causes)


class TooManyImages(ServiceError):
    """More images in one request than the server takes."""

    def __init__(self, found: int, limit: int) -> None:
        super().__init__(found, limit)
        self.found, self.limit = found, limit


class BodyTypeUnsupported(ServiceError):
    """The body is of none of the media types of the route."""

    def __init__(self, expected: Sequence[str]) -> None:
        super().__init__(*expected)
        self.expected = tuple(expected)


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of problem: status, last part of its type, title, and what turns an exception into words and headers."""

    status: int
    slug: str
    title: str
    detail: Callable[[Any], str]
    headers: Callable[[Any], Mapping[str, str]] = field(default=lambda _error: {})


PROBLEMS: Mapping[type[ServiceError], Kind] = {
    errors.GalleryNotFound: Kind(
        404, "gallery-not-found", "Gallery not found", lambda e: f"There is no gallery {e.gallery}."
    ),
    errors.GalleryExists: Kind(
        409, "gallery-exists", "Gallery exists", lambda e: f"There is a gallery {e.gallery} already."
    ),
    errors.AliasExists: Kind(
        409,
        "alias-exists",
        "Alias exists",
        lambda e: f"There is an alias {e.alias} already; a gallery needs another name.",
    ),
    errors.AliasNotFound: Kind(404, "alias-not-found", "Alias not found", lambda e: f"There is no alias {e.alias}."),
    errors.ErasureNotFound: Kind(
        404, "erasure-not-found", "Receipt not found", lambda e: f"There is no receipt {e.erasure}."
    ),
    errors.ItemNotFound: Kind(
        404, "item-not-found", "Item not found", lambda e: f"Gallery {e.gallery} has no {e.item}, or no image of it."
    ),
    errors.ModelNotFound: Kind(
        404,
        "model-not-found",
        "Model not found",
        lambda e: f"No model {e.model} is loaded; there is {', '.join(e.known)}.",
    ),
    errors.ModelMismatch: Kind(
        409,
        "model-mismatch",
        "Gallery is bound to another model",
        lambda e: f"Gallery {e.gallery} is bound to {e.expected}, the request brings {e.found}.",
    ),
    errors.ImageRejected: Kind(422, "image-rejected", "Image rejected", lambda e: _sentence(e.reason)),
    errors.ImageTooLarge: Kind(413, "image-too-large", "Image too large", lambda e: _sentence(e.reason)),
    errors.ImageTypeUnsupported: Kind(
        415, "image-type-unsupported", "Image type not supported", lambda e: _sentence(e.reason)
    ),
    errors.EmbeddingFailed: Kind(
        500, "embedding-failed", "Embedding failed", lambda _: "The model failed on this image."
    ),
    errors.Unauthorized: Kind(
        401,
        "unauthorized",
        "API key needed",
        lambda _: "Send a valid key: Authorization: Bearer KEY, or X-API-Key: KEY.",
        lambda _: {"WWW-Authenticate": "Bearer"},
    ),
    errors.Forbidden: Kind(403, "forbidden", "Not allowed", lambda e: f"Needed: {e.needed}."),
    errors.KeyNotFound: Kind(404, "key-not-found", "Key not found", lambda e: f"There is no key {e.key}."),
    errors.BadKey: Kind(422, "bad-key", "Key not possible", lambda e: _sentence(e.reason)),
    errors.Overloaded: Kind(
        429,
        "overloaded",
        "Too many images in flight",
        lambda e: f"Try again in {e.retry_after_s} s.",
        lambda e: {"Retry-After": str(e.retry_after_s)},
    ),
    errors.NotReady: Kind(503, "not-ready", "Not ready", lambda e: _sentence("; ".join(e.reasons))),
    errors.StorageFull: Kind(
        507, "storage-full", "Storage full", lambda _: "The disk of the data directory is full; nothing was stored."
    ),
    errors.ThumbnailsMissing: Kind(
        409,
        "thumbnails-missing",
        "Thumbnails missing",
        lambda e: f"{e.items:,} items of gallery {e.gallery} have no thumbnail to embed; nothing was changed.",
    ),
    errors.JobNotFound: Kind(404, "job-not-found", "Job not found", lambda e: f"There is no job {e.job}."),
    errors.ArchiveRejected: Kind(422, "archive-rejected", "Archive rejected", lambda e: _sentence(e.reason)),
    errors.EntryRejected: Kind(422, "entry-rejected", "Entry rejected", lambda e: _sentence(e.reason)),
    InvalidRequest: Kind(422, "invalid-request", "Invalid request", lambda e: "; ".join(map(_words, e.faults)) + "."),
    UploadsFailed: Kind(
        422, "uploads-failed", "Uploads failed", lambda e: f"{len(e.causes)} uploads failed, for different reasons."
    ),
    TooManyImages: Kind(
        413, "too-many-images", "Too many images", lambda e: f"{e.found} images; at most {e.limit} are taken."
    ),
    BodyTypeUnsupported: Kind(
        415, "body-type-unsupported", "Body type not supported", lambda e: f"Send {' or '.join(e.expected)}."
    ),
}

_FRAMEWORK: Mapping[int, tuple[str, str, str]] = {
    400: ("malformed", "Malformed request", "The body is not the form or JSON that it claims to be."),
    404: ("not-found", "Not found", "There is nothing at this path."),
    405: ("method-not-allowed", "Method not allowed", "This path does not take this method."),
    413: ("body-too-large", "Body too large", "The request body is larger than the server takes; see /v1/limits."),
    415: ("body-type-unsupported", "Body type not supported", "The body is of a type that this path does not take."),
    500: ("internal", "Internal error", "The server failed; its log has the cause under the request id."),
}


def kind_of(error: ServiceError) -> Kind:
    """The kind of an error, by the nearest class of the table."""
    return next(PROBLEMS[cls] for cls in type(error).__mro__ if cls in PROBLEMS)


def describe(error: ServiceError) -> Problem:
    """The problem of an error, as a part of an answer."""
    error, faults = _common_cause(error), faults_of(error)
    kind = kind_of(error)
    return Problem(
        type=_TYPE + kind.slug, title=kind.title, status=kind.status, detail=kind.detail(error), errors=faults
    )


def explained(error: ServiceError) -> Mapping[str, Any]:
    """The problem of an error as JSON, to be kept and told later."""
    return describe(error).model_dump(mode="json")


def problem_response(request: Request, error: ServiceError, **members: object) -> JSONResponse:
    """The answer to a request that failed with ``error``; ``members`` are added to the problem's own."""
    return _response(request, describe(error), kind_of(error).headers(error), members)


def faults_of(error: ServiceError, where: str | None = None) -> list[FieldError]:
    """Each offending field or file of ``error``, which befell the field ``where``."""
    if isinstance(error, InvalidRequest):
        return list(error.faults)
    if isinstance(error, UploadsFailed):
        return [fault for where, cause in error.causes.items() for fault in faults_of(cause, where)]
    return [] if where is None else [FieldError(field=where, detail=kind_of(error).detail(error))]


def framework_response(request: Request, status: int, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The answer where the framework, a middleware or a bug has the word."""
    slug, title, detail = _FRAMEWORK.get(status, _FRAMEWORK[500 if status >= 500 else 400])
    return _response(request, Problem(type=_TYPE + slug, title=title, status=status, detail=detail), headers)


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What a route may answer besides its result, for the OpenAPI document; what any route may answer is added."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    titles: dict[int, list[str]] = {}
    for status, title in [
        *((kind.status, kind.title) for kind in PROBLEMS.values()),
        *((status, title) for status, (_, title, _) in _FRAMEWORK.items()),
    ]:
        titles.setdefault(status, []).append(title)
    always = {401, 403, 422, 500}
    return {
        status: {"description": ", or ".join(dict.fromkeys(titles[status])), "content": content}
        for status in sorted(always | set(statuses))
    }


def install(app: FastAPI) -> None:
    """Answer every exception of ``app`` with a problem. What nobody foresaw is left to the outermost middleware."""

    async def service_error(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, ServiceError)  # noqa: S101 - registered for nothing else
        return problem_response(request, error)

    async def validation_error(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for nothing else
        found = [{**fault, "loc": fault["loc"][1:]} for fault in error.errors()]  # without "body", "query", "path"
        return problem_response(request, InvalidRequest(field_errors(found)))  # type: ignore[arg-type]

    async def http_error(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)  # noqa: S101 - registered for nothing else
        return framework_response(request, error.status_code, headers=error.headers)

    app.add_exception_handler(ServiceError, service_error)
    app.add_exception_handler(RequestValidationError, validation_error)
    app.add_exception_handler(HTTPException, http_error)


def _response(
    request: Request, problem: Problem, headers: Mapping[str, str] | None, members: Mapping[str, object] | None = None
) -> JSONResponse:
    trace = trace_of(request)
    trace.problem = problem.type.removeprefix(_TYPE)
    body = problem.model_copy(update={"instance": request.url.path, "request_id": trace.request_id})
    content = {**body.model_dump(mode="json"), **(members or {})}
    return JSONResponse(content, problem.status, headers=dict(headers or {}), media_type=MEDIA_TYPE)


def _common_cause(error: ServiceError) -> ServiceError:
    """One of the causes, where all are of one kind; else the error itself."""
    if not isinstance(error, UploadsFailed):
        return error
    first, *others = error.causes.values()
    return first if all(kind_of(other) is kind_of(first) for other in others) else error


def _words(fault: FieldError) -> str:
    return f"{fault.field} {fault.detail}"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."
