"""Publication under a path prefix by a reverse proxy."""

from __future__ import annotations

from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["RootPath"]


class RootPath:
    """Removes ``prefix`` from request paths, if the proxy has not, and adds it to ``Location`` headers.

    It is the outermost middleware, so that authentication and limits see the same paths with and without a proxy.
    """

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self.app, self.prefix = app, prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http" or not self.prefix:
            await self.app(scope, receive, send)
            return
        if scope["path"] == self.prefix:  # relative addresses on the page need the slash
            await RedirectResponse(f"{self.prefix}/", 308)(scope, receive, send)
            return
        if scope["path"].startswith(f"{self.prefix}/"):
            scope = {**scope, "path": scope["path"].removeprefix(self.prefix)}

        async def send_with_prefix(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [(name, self._public(name, value)) for name, value in message["headers"]]
            await send(message)

        await self.app(scope, receive, send_with_prefix)

    def _public(self, name: bytes, value: bytes) -> bytes:
        is_path = name.lower() == b"location" and value.startswith(b"/")
        return self.prefix.encode() + value if is_path else value
