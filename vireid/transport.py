"""Requests to the server: sent, sent again when it is busy, and answered by a typed value or an error that says why."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import httpx2
from pydantic import BaseModel, ValidationError

from vireid.wire import FieldError, Page, Problem

__all__ = ["ApiError", "ClientError", "Transport", "UnexpectedAnswer", "Unreachable"]

Model = TypeVar("Model", bound=BaseModel)
SomePage = TypeVar("SomePage", bound=Page)

_LONGEST_WAIT_S = 60.0
_DATA = "data: "
_POSITION = re.compile(r"^(images|items)\[(\d+)\]")


class ClientError(Exception):
    """Base of what a call to the server can fail with. The text is one line for people."""


class Unreachable(ClientError):
    """No answer came: nothing listens there, the connection broke, or it took too long."""


class UnexpectedAnswer(ClientError):
    """What answers there is no vireid server with this version of the API."""


class ApiError(ClientError):
    """The server refused or failed; ``problem`` is what it says about it."""

    def __init__(self, problem: Problem, retry_after: float | None = None) -> None:
        detail = f": {problem.detail}" if problem.detail else ""
        request = f" (request {problem.request_id})" if problem.request_id else ""
        super().__init__(f"{problem.status} {problem.title}{detail}{request}")
        self.problem = problem
        self.retry_after = retry_after
        """Seconds after which the server may take the request; None where it does not say."""

    @property
    def status(self) -> int:
        """HTTP status."""
        return self.problem.status

    @property
    def errors(self) -> tuple[FieldError, ...]:
        """Each offending field or file; positions count from the first entry that the call was given."""
        return self.problem.errors

    @property
    def by_position(self) -> dict[int, str]:
        """Details of the errors that name an image or an item, by its position."""
        found = ((_POSITION.match(error.field), error.detail) for error in self.errors)
        return {int(match[2]): detail for match, detail in found if match}

    def moved(self, by: int) -> ApiError:
        """The same error with every position ``by`` further."""
        errors = tuple(
            FieldError(
                field=_POSITION.sub(lambda match: f"{match[1]}[{int(match[2]) + by}]", error.field), detail=error.detail
            )
            for error in self.errors
        )
        return ApiError(self.problem.model_copy(update={"errors": errors}), self.retry_after)


class Transport:
    """Sends requests to one server. Threads may share it.

    A request that the server is too busy for (429) is sent again after the time that it names, ``retries`` times at
    most and never after more than a minute.

    Raises:
        ClientError: ``base_url`` is no URL.
    """

    def __init__(
        self,
        base_url: str,
        key: str | None,
        *,
        timeout: float,
        retries: int,
        transport: httpx2.BaseTransport | None,
        sleep: Callable[[float], None],
    ) -> None:
        self._base_url, self._retries, self._sleep = base_url, retries, sleep
        try:
            url = httpx2.URL(base_url)
        except httpx2.InvalidURL as error:
            raise ClientError(f"{base_url} is no URL: {error}") from None
        self._http = httpx2.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {key.strip()}"} if key else {},
            timeout=timeout,
            transport=transport,
            trust_env=not _is_loopback(url.host),  # a proxy cannot reach this machine's loopback address
        )

    def close(self) -> None:
        """Close every connection."""
        self._http.close()

    def ask(self, answer: type[Model], method: str, path: str, **content: Any) -> Model:
        """Send a request and read its JSON answer; ``content`` is that of ``httpx2.Client.request``.

        Raises:
            UnexpectedAnswer: the answer is not what the API promises.
            ApiError, Unreachable: as :meth:`send`.
        """
        response = self.send(method, path, **content)
        try:
            return answer.model_validate_json(response.content)
        except ValidationError as error:
            found = response.headers.get("content-type", "nothing")
            raise _unexpected(response, f"{found} that is no {answer.__name__}") from error

    def upload(self, answer: type[Model], path: str, body: Iterable[bytes], **content: Any) -> Model:
        """Post a body as it is produced, in constant memory, and read the JSON answer. It is sent once.

        Raises:
            ApiError, Unreachable, UnexpectedAnswer: as :meth:`ask`.
        """
        with self._streaming("POST", path, content=body, **content) as response:
            response.read()
            try:
                return answer.model_validate_json(response.content)
            except ValidationError as error:
                raise _unexpected(response, f"what is no {answer.__name__}") from error

    def download(self, path: str) -> Iterator[bytes]:
        """The body of an answer, block by block, in constant memory.

        Raises:
            ApiError, Unreachable: as :meth:`send`; ``Unreachable`` also where the answer breaks off.
        """
        with self._streaming("GET", path) as response:
            yield from response.iter_bytes()

    def events(self, event: type[Model], path: str) -> Iterator[Model]:
        """The data of each server-sent event, as they come; ends when the server ends the stream.

        Raises:
            ApiError, Unreachable, UnexpectedAnswer: as :meth:`ask`.
        """
        with self._streaming("GET", path) as response:
            for line in response.iter_lines():
                if line.startswith(_DATA):
                    try:
                        yield event.model_validate_json(line.removeprefix(_DATA))
                    except ValidationError as error:
                        raise _unexpected(response, f"an event that is no {event.__name__}") from error

    def pages(self, answer: type[SomePage], path: str, params: Mapping[str, Any]) -> Iterator[SomePage]:
        """Every page of a list, fetched as it is needed."""
        following: dict[str, str] = {}
        while True:
            page = self.ask(answer, "GET", path, params={**params, **following})
            yield page
            if page.next_cursor is None:
                return
            following = {"cursor": page.next_cursor}

    @contextmanager
    def _streaming(self, method: str, path: str, **content: Any) -> Iterator[httpx2.Response]:
        try:
            with self._http.stream(method, path, **content) as response:
                if not response.is_success:
                    response.read()
                    raise ApiError(_problem(response), _retry_after(response))
                yield response
        except httpx2.RequestError as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: httpx2.RequestError) -> Unreachable:
        return Unreachable(f"no answer from {self._base_url}: {error or type(error).__name__}")

    def send(self, method: str, path: str, **content: Any) -> httpx2.Response:
        """Send a request; ``content`` is that of ``httpx2.Client.request``.

        Raises:
            ApiError: the server refused or failed.
            Unreachable: no answer came.
        """
        request = self._http.build_request(method, path, **content)
        request.read()  # into one block; the parts of a form would be written one by one
        retries = 0
        while True:
            try:
                response = self._http.send(request)
            except httpx2.RequestError as error:
                raise self._unreachable(error) from error
            if response.is_success:
                return response
            wait, busy = _retry_after(response), response.status_code == httpx2.codes.TOO_MANY_REQUESTS
            if not busy or wait is None or wait > _LONGEST_WAIT_S or retries == self._retries:
                raise ApiError(_problem(response), wait)
            self._sleep(wait)
            retries += 1


def _unexpected(response: httpx2.Response, what: str) -> UnexpectedAnswer:
    return UnexpectedAnswer(f"{response.url} answered {what}: no vireid server, or another version")


def _problem(response: httpx2.Response) -> Problem:
    """What the server says, or the bare status where something before it (a proxy) has answered."""
    try:
        return Problem.model_validate_json(response.content)
    except ValidationError:
        goal = response.headers.get("location")
        detail = f"{response.url} redirects to {goal}" if goal else f"{response.url} answered without saying why"
        return Problem(status=response.status_code, title=response.reason_phrase or "Error", detail=detail)


def _retry_after(response: httpx2.Response) -> float | None:
    try:
        return max(0.0, float(response.headers.get("retry-after", "")))
    except ValueError:  # a date, which the server never sends
        return None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
