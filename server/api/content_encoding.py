"""Decoding of compressed request bodies."""

from __future__ import annotations

import zlib

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.api.errors import ContentEncodingUnsupported, MalformedBody, problem_response

__all__ = ["ContentDecoding"]

_CHUNK = 1 << 20
_ZLIB_OR_GZIP = 32 + zlib.MAX_WBITS
_SUPPORTED = {"gzip", "x-gzip", "deflate"}


class ContentDecoding:
    """Decodes bodies with ``Content-Encoding: gzip`` or ``deflate`` while they arrive; refuses others with 415.

    The limit of the body's size, applied by the next middleware, counts decoded bytes.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        request = Request(scope) if scope["type"] == "http" else None
        encoding = request.headers.get("content-encoding", "").strip().lower() if request else ""
        if request is None or encoding in {"", "identity"}:
            await self.app(scope, receive, send)
        elif encoding not in _SUPPORTED:
            await problem_response(request, ContentEncodingUnsupported(encoding))(scope, receive, send)
        else:
            replaced = {b"content-encoding", b"content-length"}
            scope = {**scope, "headers": [header for header in scope["headers"] if header[0] not in replaced]}
            await self.app(scope, _Decoder(receive).receive, send)


class _Decoder:
    """Replaces the bodies of messages by their decoded content, in pieces of bounded size."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._decompressor = zlib.decompressobj(_ZLIB_OR_GZIP)
        self._pending = b""
        self._more = True

    async def receive(self) -> Message:
        """Return the next message.

        Raises:
            MalformedBody: the body is not valid compressed data.
        """
        if not self._pending and self._more:
            message = await self._receive()
            if message["type"] != "http.request":
                return message
            self._pending, self._more = message.get("body", b""), message.get("more_body", False)
        elif not self._pending:
            return await self._receive()  # the body has ended; this waits for the disconnection
        decoded = self._decode()
        more = bool(self._more or self._pending)
        if not more and not self._decompressor.eof:
            raise MalformedBody("the compressed body is incomplete")
        return {"type": "http.request", "body": decoded, "more_body": more}

    def _decode(self) -> bytes:
        if self._decompressor.eof and self._pending:  # another member of the same file
            self._decompressor = zlib.decompressobj(_ZLIB_OR_GZIP)
        try:
            decoded = self._decompressor.decompress(self._pending, _CHUNK)
        except zlib.error:
            raise MalformedBody("the body is not valid gzip or deflate data") from None
        self._pending = self._decompressor.unconsumed_tail or self._decompressor.unused_data
        return decoded
