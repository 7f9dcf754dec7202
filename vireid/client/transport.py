"""HTTP requests to one server: retried while it is busy, answered by a schema or by an error that says why."""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from itertools import count
from typing import Any, Protocol, TypeVar

import httpx2
from pydantic import BaseModel, ValidationError

from vireid.client.errors import ClientError, InvalidRequest, UnexpectedAnswer, Unreachable, api_error
from vireid.schemas.problems import Problem

__all__ = ["Transport"]

Model = TypeVar("Model", bound=BaseModel)

_MAX_WAIT_S = 60.0
_FIRST_WAIT_S = 1.0
_REPEATABLE_METHODS = {"GET", "PUT"}
_NOT_PROCESSED = {429}
_UNAVAILABLE = {429, 502, 503, 504}
_DROPPED_CONNECTION = (httpx2.ReadError, httpx2.WriteError, httpx2.RemoteProtocolError)
_DATA = "data: "


class _Page(Protocol):
    @property
    def next_cursor(self) -> str | None: ...


Page = TypeVar("Page", bound=_Page)


class Transport:
    """Sends requests to one server. Threads may share it.

    A request is sent again, at most ``retries`` times, where the server is too busy for it (429). One that may be
    processed twice without harm is also sent again where the server is unavailable (502, 503, 504) or the connection
    drops. The wait is that of ``Retry-After``, or doubles from one second; a server that asks for more than a minute is
    not waited for. A connection that is refused or times out is not tried again.

    Raises:
        ClientError: ``base_url`` is not a URL.
    """

    def __init__(
        self,
        base_url: str,
        headers: Mapping[str, str | None],
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
            raise ClientError(f"{base_url} is not a URL: {error}") from None
        self._http = httpx2.Client(
            base_url=url,
            headers={name.encode(): value.strip().encode() for name, value in headers.items() if value},
            timeout=timeout,
            transport=transport,
            trust_env=not _is_loopback(url.host),  # a proxy cannot reach this machine's loopback address
        )

    def close(self) -> None:
        """Close every connection."""
        self._http.close()

    def request(self, answer: type[Model], method: str, path: str, **content: Any) -> Model:
        """Send a request and parse its JSON response; ``content`` is that of ``httpx2.Client.request``.

        Raises:
            UnexpectedAnswer: the response does not have the schema.
            ApiError, Unreachable: as :meth:`send`.
        """
        return _parse(answer, self.send(method, path, **content))

    def upload(self, answer: type[Model], path: str, body: Iterable[bytes], **content: Any) -> Model:
        """Post a body while it is produced, in constant memory, and parse the JSON response. Never retried.

        Raises:
            ApiError, Unreachable, UnexpectedAnswer: as :meth:`request`.
        """
        with self._stream("POST", path, content=body, **content) as response:
            response.read()
            return _parse(answer, response)

    def download(self, path: str) -> Iterator[bytes]:
        """Yield the body of a response block by block, in constant memory.

        Raises:
            ApiError, Unreachable: as :meth:`send`; ``Unreachable`` also if the body breaks off.
        """
        with self._stream("GET", path) as response:
            yield from response.iter_bytes()

    def events(self, event: type[Model], path: str) -> Iterator[Model]:
        """Yield the data of each server-sent event until the server ends the stream.

        Raises:
            ApiError, Unreachable, UnexpectedAnswer: as :meth:`request`.
        """
        with self._stream("GET", path) as response:
            for line in response.iter_lines():
                if line.startswith(_DATA):
                    yield _parse(event, response, line.removeprefix(_DATA))

    def pages(self, page: type[Page], path: str, params: Mapping[str, Any]) -> Iterator[Page]:
        """Yield every page of a list; each is fetched when the iterator reaches it."""
        following: dict[str, str] = {}
        while True:
            current: Page = self.request(page, "GET", path, params={**params, **following})  # type: ignore[type-var]
            yield current
            if current.next_cursor is None:
                return
            following = {"cursor": current.next_cursor}

    def send(self, method: str, path: str, *, repeatable: bool | None = None, **content: Any) -> httpx2.Response:
        """Send a request; ``content`` is that of ``httpx2.Client.request``.

        ``repeatable`` says whether the server may process the request twice; without it, only GET and PUT are.

        Raises:
            ApiError: the server refused or failed.
            Unreachable: there was no response.
        """
        repeatable = method in _REPEATABLE_METHODS if repeatable is None else repeatable
        try:
            request = self._http.build_request(method, path, **content)
        except httpx2.InvalidURL as error:
            raise InvalidRequest(f"the filter or another parameter is too long for a URL: {error}") from None
        request.read()  # into one block; the parts of a form would be written one by one
        for retries in count():
            try:
                response = self._http.send(request)
            except httpx2.RequestError as error:
                if retries == self._retries or not (repeatable and isinstance(error, _DROPPED_CONNECTION)):
                    raise self._unreachable(error) from error
                wait = _backoff(retries)
            else:
                if response.is_success:
                    return response
                retry_after = _retry_after(response)
                wait = _backoff(retries) if retry_after is None else retry_after
                retriable = response.status_code in (_UNAVAILABLE if repeatable else _NOT_PROCESSED)
                if not retriable or wait > _MAX_WAIT_S or retries == self._retries:
                    raise api_error(_problem(response), retry_after)
            self._sleep(wait)
        raise AssertionError("unreachable")

    @contextmanager
    def _stream(self, method: str, path: str, **content: Any) -> Iterator[httpx2.Response]:
        try:
            with self._http.stream(method, path, **content) as response:
                if not response.is_success:
                    response.read()
                    raise api_error(_problem(response), _retry_after(response))
                yield response
        except httpx2.RequestError as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: httpx2.RequestError) -> Unreachable:
        return Unreachable(f"no answer from {self._base_url}: {error or type(error).__name__}")


def _parse(answer: type[Model], response: httpx2.Response, content: str | None = None) -> Model:
    """Parse JSON by a schema; unknown fields are ignored, so that a newer server can be read."""
    try:
        return answer.model_validate_json(response.content if content is None else content, extra="ignore")
    except ValidationError as error:
        kind = response.headers.get("content-type", "a response without a type")
        raise UnexpectedAnswer(
            f"{response.url} answered {kind} that is not {answer.__name__}: not a vireid server, or another version"
        ) from error


def _problem(response: httpx2.Response) -> Problem:
    """Return the problem in the body, or one made of the status if a proxy has answered."""
    try:
        return Problem.model_validate_json(response.content, extra="ignore")
    except ValidationError:
        target = response.headers.get("location")
        detail = f"{response.url} redirects to {target}" if target else f"{response.url} answered without a reason"
        title = response.reason_phrase or "Error"
        return Problem(type="about:blank", status=response.status_code, title=title, detail=detail)


def _retry_after(response: httpx2.Response) -> float | None:
    """Return the seconds in ``Retry-After``, which is a number or a date; None if there are none."""
    value = response.headers.get("retry-after", "")
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):  # not a date, or one without a time zone
        return None


def _backoff(retries: int) -> float:
    """Return the seconds before the next retry: doubled each time, and random, so that clients do not retry at once."""
    return random.uniform(0.5, 1) * min(_MAX_WAIT_S, _FIRST_WAIT_S * 2.0**retries)  # noqa: S311


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
