"""The table of problems (RFC 9457) by exception, for errors of the server and of the web framework.

All texts for users are defined here. The text of an exception, a traceback or a path of the server is never sent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from server.api.trace import trace_of
from server.domain import errors
from server.domain.errors import ServiceError
from server.domain.validation import FieldError, InvalidRequest, field_errors
from vireid.schemas.problems import Problem

__all__ = [
    "FRAMEWORK_PROBLEMS",
    "PROBLEMS",
    "BodyTypeUnsupported",
    "ProblemType",
    "TooManyImages",
    "UploadsFailed",
    "describe",
    "describe_as_json",
    "field_errors_of",
    "framework_response",
    "install",
    "problem_bytes",
    "problem_response",
    "problem_type_of",
    "problems",
]

MEDIA_TYPE = "application/problem+json"
_TYPE = "/problems/"


class UploadsFailed(ServiceError):
    """Invalid uploads of a request that needs all of its uploads, or none of whose uploads is valid."""

    def __init__(self, causes: Mapping[str, ServiceError]) -> None:
        super().__init__(*causes)
        self.causes = dict(causes)


class TooManyImages(ServiceError):
    """More images in one request than the server allows."""

    def __init__(self, found: int, limit: int) -> None:
        super().__init__(found, limit)
        self.found, self.limit = found, limit


class BodyTypeUnsupported(ServiceError):
    """The body has none of the media types that the route accepts."""

    def __init__(self, expected: Sequence[str]) -> None:
        super().__init__(*expected)
        self.expected = tuple(expected)


class MalformedBody(ServiceError):
    """The body violates the syntax of its media type. ``reason`` is safe to show."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ContentEncodingUnsupported(ServiceError):
    """The body is compressed in a way that the server does not support."""

    def __init__(self, encoding: str) -> None:
        super().__init__(encoding)
        self.encoding = encoding


@dataclass(frozen=True, slots=True)
class ProblemType:
    """Status, last part of the type, title, and functions from an exception to its detail and headers."""

    status: int
    slug: str
    title: str
    detail: Callable[[Any], str]
    headers: Callable[[Any], Mapping[str, str]] = field(default=lambda _error: {})


PROBLEMS: Mapping[type[ServiceError], ProblemType] = {
    errors.GalleryNotFound: ProblemType(
        404, "gallery-not-found", "Gallery not found", lambda e: f"Gallery {e.gallery} does not exist."
    ),
    errors.GalleryExists: ProblemType(
        409, "gallery-exists", "Gallery exists", lambda e: f"Gallery {e.gallery} already exists."
    ),
    errors.AliasExists: ProblemType(
        409,
        "alias-exists",
        "Alias exists",
        lambda e: f"An alias {e.alias} already exists; choose another name for the gallery.",
    ),
    errors.AliasNotFound: ProblemType(
        404, "alias-not-found", "Alias not found", lambda e: f"Alias {e.alias} does not exist."
    ),
    errors.ErasureNotFound: ProblemType(
        404, "erasure-not-found", "Receipt not found", lambda e: f"Receipt {e.erasure} does not exist."
    ),
    errors.ItemNotFound: ProblemType(
        404,
        "item-not-found",
        "Item not found",
        lambda e: f"Gallery {e.gallery} has no item {e.item}, or no image of it.",
    ),
    errors.ModelNotFound: ProblemType(
        404,
        "model-not-found",
        "Model not found",
        lambda e: f"Model {e.model} is not loaded; loaded models: {', '.join(e.known)}.",
    ),
    errors.ModelMismatch: ProblemType(
        409,
        "model-mismatch",
        "Gallery is bound to another model",
        lambda e: f"Gallery {e.gallery} is bound to {e.expected}; the request has {e.found}.",
    ),
    errors.ImageRejected: ProblemType(422, "image-rejected", "Image rejected", lambda e: _sentence(e.reason)),
    errors.ImageTooLarge: ProblemType(413, "image-too-large", "Image too large", lambda e: _sentence(e.reason)),
    errors.ImageTypeUnsupported: ProblemType(
        415, "image-type-unsupported", "Image type not supported", lambda e: _sentence(e.reason)
    ),
    errors.EmbeddingFailed: ProblemType(
        500, "embedding-failed", "Embedding failed", lambda _: "The model failed on this image."
    ),
    errors.Unauthorized: ProblemType(
        401,
        "unauthorized",
        "API key required",
        lambda _: "Send a valid key: Authorization: Bearer KEY, or X-API-Key: KEY.",
        lambda _: {"WWW-Authenticate": "Bearer"},
    ),
    errors.Forbidden: ProblemType(403, "forbidden", "Not allowed", lambda e: f"Required: {e.needed}."),
    errors.ApiKeyNotFound: ProblemType(
        404, "key-not-found", "Key not found", lambda e: f"API key {e.key} does not exist."
    ),
    errors.ApiKeyRejected: ProblemType(422, "bad-key", "Invalid API key options", lambda e: _sentence(e.reason)),
    errors.LastAdminKey: ProblemType(
        409,
        "last-admin-key",
        "Last admin key",
        lambda e: f"No other key can manage keys; create another admin key before deleting {e.key}, or rotate it.",
    ),
    errors.RateLimited: ProblemType(
        429,
        "rate-limited",
        "Too many requests",
        lambda e: f"The key has used up its requests per minute; try again in {e.retry_after_s} s.",
        lambda e: {"Retry-After": str(e.retry_after_s)},
    ),
    errors.Overloaded: ProblemType(
        429,
        "overloaded",
        "Too many images in flight",
        lambda e: f"Try again in {e.retry_after_s} s.",
        lambda e: {"Retry-After": str(e.retry_after_s)},
    ),
    errors.TooManyFailures: ProblemType(
        429,
        "too-many-failures",
        "Too many requests without a valid key",
        lambda e: f"Too many requests from this address had no valid API key; try again in {e.retry_after_s} s.",
        lambda e: {"Retry-After": str(e.retry_after_s)},
    ),
    errors.DeadlineExceeded: ProblemType(
        503,
        "deadline-exceeded",
        "Not served in time",
        lambda e: f"The request was not served within {e.limit_s:g} s and was dropped; try again later.",
        lambda _: {"Retry-After": "5"},
    ),
    errors.BodyMemoryFull: ProblemType(
        503,
        "body-memory-full",
        "Too many bodies in memory",
        lambda _: "The bodies of all requests together take as much memory as they may; try again.",
        lambda _: {"Retry-After": "1"},
    ),
    errors.TooManyConnections: ProblemType(
        503,
        "too-many-connections",
        "Too many connections",
        lambda _: "The server has as many connections as it may; try again.",
        lambda _: {"Retry-After": "1"},
    ),
    errors.RequestTooSlow: ProblemType(408, "request-too-slow", "Request too slow", lambda e: _sentence(e.reason)),
    errors.HeaderTooLarge: ProblemType(
        431, "header-too-large", "Header too large", lambda e: f"The header may have at most {e.limit:,} bytes."
    ),
    errors.NotReady: ProblemType(503, "not-ready", "Not ready", lambda e: _sentence("; ".join(e.reasons))),
    errors.DatabaseUnavailable: ProblemType(
        503,
        "database-unavailable",
        "Database not available",
        lambda e: _sentence("; ".join(e.reasons)) + " The request can be repeated.",
        lambda _: {"Retry-After": "1"},
    ),
    errors.StorageFull: ProblemType(
        507, "storage-full", "Storage full", lambda _: "The disk of the data directory is full; nothing was stored."
    ),
    errors.ThumbnailsMissing: ProblemType(
        409,
        "thumbnails-missing",
        "Thumbnails missing",
        lambda e: f"{e.items:,} items of gallery {e.gallery} have no thumbnail to embed; nothing was changed.",
    ),
    errors.JobNotFound: ProblemType(404, "job-not-found", "Job not found", lambda e: f"Job {e.job} does not exist."),
    errors.ArchiveRejected: ProblemType(422, "archive-rejected", "Archive rejected", lambda e: _sentence(e.reason)),
    errors.EntryRejected: ProblemType(422, "entry-rejected", "Entry rejected", lambda e: _sentence(e.reason)),
    InvalidRequest: ProblemType(
        422, "invalid-request", "Invalid request", lambda e: "; ".join(map(_field_sentence, e.errors)) + "."
    ),
    UploadsFailed: ProblemType(
        422, "uploads-failed", "Uploads failed", lambda e: f"{len(e.causes)} uploads failed, for different reasons."
    ),
    TooManyImages: ProblemType(
        413,
        "too-many-images",
        "Too many images",
        lambda e: f"The request has {e.found} images; at most {e.limit} are allowed.",
    ),
    MalformedBody: ProblemType(400, "malformed", "Malformed request", lambda e: _sentence(e.reason)),
    ContentEncodingUnsupported: ProblemType(
        415,
        "content-encoding-unsupported",
        "Content encoding not supported",
        lambda e: f"Content-Encoding {e.encoding[:40]} is not supported; send gzip, deflate or no encoding.",
        lambda _: {"Accept-Encoding": "gzip, deflate"},
    ),
    BodyTypeUnsupported: ProblemType(
        415, "body-type-unsupported", "Body type not supported", lambda e: f"Send {' or '.join(e.expected)}."
    ),
}

FRAMEWORK_PROBLEMS: Mapping[int, tuple[str, str, str]] = {
    400: ("malformed", "Malformed request", "The body does not match its content type."),
    404: ("not-found", "Not found", "This path does not exist."),
    405: ("method-not-allowed", "Method not allowed", "This path does not allow this method."),
    413: ("body-too-large", "Body too large", "The request body exceeds the limit of the server; see /v1/limits."),
    415: (
        "body-type-unsupported",
        "Body type not supported",
        "This path does not accept the content type of the body.",
    ),
    500: ("internal", "Internal error", "The server failed; its log holds the cause under the request id."),
}


def problem_type_of(error: ServiceError) -> ProblemType:
    """Return the problem type of an error, by the nearest of its classes in the table."""
    return next(PROBLEMS[cls] for cls in type(error).__mro__ if cls in PROBLEMS)


def describe(error: ServiceError) -> Problem:
    """Return the problem of an error, as part of a response."""
    error, invalid_fields = _common_cause(error), field_errors_of(error)
    problem_type = problem_type_of(error)
    return Problem(
        type=_TYPE + problem_type.slug,
        title=problem_type.title,
        status=problem_type.status,
        detail=problem_type.detail(error),
        errors=[{"field": fault.field, "detail": fault.detail} for fault in invalid_fields],
    )


def describe_as_json(error: ServiceError) -> Mapping[str, Any]:
    """Return the problem of an error as JSON, to be stored."""
    return describe(error).model_dump(mode="json")


def problem_response(request: Request, error: ServiceError, **members: object) -> JSONResponse:
    """Return the response to a request that failed; ``members`` are added to those of the problem."""
    return _response(request, describe(error), problem_type_of(error).headers(error), members)


def problem_bytes(error: ServiceError) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Return status, headers and body of the response to a request that never reached the app."""
    headers = {"Content-Type": MEDIA_TYPE, **problem_type_of(error).headers(error)}
    encoded = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    problem = describe(error)
    return problem.status, encoded, problem.model_dump_json().encode()


def field_errors_of(error: ServiceError, field_name: str | None = None) -> list[FieldError]:
    """Return each invalid field or file of ``error``, which concerns the field ``field_name`` if that is given."""
    if isinstance(error, InvalidRequest):
        return list(error.errors)
    if isinstance(error, UploadsFailed):
        return [found for name, cause in error.causes.items() for found in field_errors_of(cause, name)]
    if field_name is None:
        return []
    return [FieldError(field=field_name, detail=problem_type_of(error).detail(error))]


def framework_response(request: Request, status: int, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Return the response to an error of the framework or a middleware, or to an unexpected exception."""
    slug, title, detail = FRAMEWORK_PROBLEMS.get(status, FRAMEWORK_PROBLEMS[500 if status >= 500 else 400])
    return _response(request, Problem(type=_TYPE + slug, title=title, status=status, detail=detail), headers)


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the problem responses of a route for the OpenAPI document, including those that every route may send."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    titles: dict[int, list[str]] = {}
    for status, title in [
        *((problem_type.status, problem_type.title) for problem_type in PROBLEMS.values()),
        *((status, title) for status, (_, title, _) in FRAMEWORK_PROBLEMS.items()),
    ]:
        titles.setdefault(status, []).append(title)
    always = {400, 401, 403, 408, 422, 429, 431, 500, 503}
    return {
        status: {"description": ", or ".join(dict.fromkeys(titles[status])), "content": content}
        for status in sorted(always | set(statuses))
    }


def install(app: FastAPI) -> None:
    """Answer the expected exceptions of ``app`` with problems; the outermost middleware handles unexpected ones."""

    async def service_error(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, ServiceError)  # noqa: S101 - the only class it is registered for
        return problem_response(request, error)

    async def validation_error(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)  # noqa: S101 - the only class it is registered for
        found = [{**fault, "loc": fault["loc"][1:]} for fault in error.errors()]  # without "body", "query", "path"
        return problem_response(request, InvalidRequest(field_errors(found)))  # type: ignore[arg-type]

    async def http_error(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)  # noqa: S101 - the only class it is registered for
        if isinstance(error.__cause__, ServiceError):  # raised while the framework read the body
            return problem_response(request, error.__cause__)
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
    """Return one of the causes if all have the same problem type, else the error itself."""
    if not isinstance(error, UploadsFailed):
        return error
    first, *others = error.causes.values()
    return first if all(problem_type_of(other) is problem_type_of(first) for other in others) else error


def _field_sentence(fault: FieldError) -> str:
    return f"{fault.field} {fault.detail}"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."
