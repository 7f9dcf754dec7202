"""Errors that calls to the server raise."""

from __future__ import annotations

import re
from collections.abc import Mapping

from vireid.schemas.jobs import JobStatus
from vireid.schemas.problems import FieldError, Problem

__all__ = [
    "ApiError",
    "ClientError",
    "Conflict",
    "Forbidden",
    "InvalidRequest",
    "JobFailed",
    "NotFound",
    "RequestRejected",
    "ServerFailed",
    "TooBusy",
    "Unauthorized",
    "UnexpectedAnswer",
    "Unreachable",
    "api_error",
]

_POSITION = re.compile(r"^(images|items)\[(\d+)\]")


class ClientError(Exception):
    """Base of the errors of the client. The text is one line for people."""


class InvalidRequest(ClientError, ValueError):
    """The arguments of a call cannot form a request; nothing was sent."""


class Unreachable(ClientError):
    """No response: nothing listens at the address, the connection broke, or it timed out."""


class UnexpectedAnswer(ClientError):
    """The response is not one of this version of the API: another server answers, or another version."""


class ApiError(ClientError):
    """The server refused a request or failed; ``problem`` is its description."""

    def __init__(self, problem: Problem, retry_after: float | None = None) -> None:
        detail = f": {problem.detail}" if problem.detail else ""
        request = f" (request {problem.request_id})" if problem.request_id else ""
        super().__init__(f"{problem.status} {problem.title}{detail}{request}")
        self.problem = problem
        self.retry_after = retry_after
        """Seconds after which the server may accept the request; None if it does not say."""

    @property
    def status(self) -> int:
        """HTTP status."""
        return self.problem.status

    @property
    def errors(self) -> tuple[FieldError, ...]:
        """Each invalid field or file; positions count from the first entry that the call was given."""
        return self.problem.errors

    @property
    def by_position(self) -> dict[int, str]:
        """Details of the errors that name an image or an item, by its position."""
        matches = ((_POSITION.match(error.field), error.detail) for error in self.errors)
        return {int(match[2]): detail for match, detail in matches if match}

    def shifted(self, offset: int) -> ApiError:
        """Return the same error with ``offset`` added to every position."""

        def shift(match: re.Match[str]) -> str:
            return f"{match[1]}[{int(match[2]) + offset}]"

        errors = tuple(
            FieldError(field=_POSITION.sub(shift, error.field), detail=error.detail) for error in self.errors
        )
        return api_error(self.problem.model_copy(update={"errors": errors}), self.retry_after)


class Unauthorized(ApiError):
    """The server requires a key, or does not accept this one (401)."""


class Forbidden(ApiError):
    """The key does not allow the call (403)."""


class NotFound(ApiError):
    """What the call names does not exist (404)."""


class Conflict(ApiError):
    """The call contradicts what exists: a name that is taken, a gallery of another model (409)."""


class RequestRejected(ApiError):
    """Values or files of the request are invalid or too large (400, 413, 415, 422)."""


class TooBusy(ApiError):
    """The server is too busy, or the key has used up its requests (429)."""


class ServerFailed(ApiError):
    """The server failed, is not ready or has a full disk (5xx)."""


class JobFailed(ClientError):
    """A job has failed or was cancelled; ``job`` is its last status."""

    def __init__(self, job: JobStatus) -> None:
        super().__init__(f"job {job.id} {job.state}" + (f": {job.error}" if job.error else ""))
        self.job = job


_BY_STATUS: Mapping[int, type[ApiError]] = {
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    **dict.fromkeys((400, 413, 415, 422), RequestRejected),
    429: TooBusy,
}


def api_error(problem: Problem, retry_after: float | None = None) -> ApiError:
    """Return the error of a problem, of the class of its status."""
    kind = ServerFailed if problem.status >= 500 else _BY_STATUS.get(problem.status, ApiError)
    return kind(problem, retry_after)
