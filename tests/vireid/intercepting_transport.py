"""A transport that interferes between client and server."""

from __future__ import annotations

from collections.abc import Callable

import httpx2

__all__ = ["InterceptingTransport"]


class InterceptingTransport(httpx2.BaseTransport):
    """Forwards requests to the server unless ``intercept`` returns a response or raises; counts the POSTs.

    ``intercept`` receives the request and the number of POSTs so far, including this one.
    """

    def __init__(self, intercept: Callable[[httpx2.Request, int], httpx2.Response | None]) -> None:
        self.intercept, self.posts, self.real = intercept, 0, httpx2.HTTPTransport()

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        self.posts += request.method == "POST"
        return self.intercept(request, self.posts) or self.real.handle_request(request)

    def close(self) -> None:
        self.real.close()
