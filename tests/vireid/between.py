"""What may happen between client and server."""

from __future__ import annotations

from collections.abc import Callable

import httpx2

__all__ = ["Between"]


class Between(httpx2.BaseTransport):
    """Passes requests on, unless ``meddle`` answers in the server's place or raises; counts the POSTs.

    ``meddle`` gets the request and how many POSTs there were, this one included.
    """

    def __init__(self, meddle: Callable[[httpx2.Request, int], httpx2.Response | None]) -> None:
        self.meddle, self.posts, self.real = meddle, 0, httpx2.HTTPTransport()

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        self.posts += request.method == "POST"
        return self.meddle(request, self.posts) or self.real.handle_request(request)

    def close(self) -> None:
        self.real.close()
