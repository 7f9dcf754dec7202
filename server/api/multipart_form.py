"""Parsing of ``multipart/form-data`` bodies as HTTP clients send them (RFC 7578)."""

from __future__ import annotations

from collections.abc import Collection

from fastapi import Request
from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header

from server.api.errors import MalformedBody

__all__ = ["parts_of"]

_MAX_PARTS = 10_000  # far above the limit of images, which has an error message of its own
_TEXT_TYPES = ("text/", "application/json", "application/x-www-form-urlencoded")
_CAUSES = {  # part of the parser's message → ours, which is safe to show
    "end of multipart stream": "the form is incomplete: its last boundary is missing",
    "first boundary": "the body does not start with the boundary of the Content-Type header, on a line of its own",
    "Maximum segment count": f"the form has more than {_MAX_PARTS:,} parts",
    "Maximum segment header": "a part of the form has too many or too long headers",
    "Content-Disposition": "a part of the form has no Content-Disposition: form-data header",
    "Content-Length": "a part of the form has a Content-Length that is not its length",
    "segment header": "a part of the form has malformed headers",
}


async def parts_of(request: Request, file_fields: Collection[str]) -> list[tuple[str, bytes | str]]:
    """Return name and content of each part in order: bytes of a file, text of a field.

    A part is a file if it has a file name or a media type that is not text, or if it is one of ``file_fields`` and its
    content is not text.

    Raises:
        MalformedBody: the body is not a valid form; the message says why.
    """
    _, options = parse_options_header(request.headers["content-type"])
    boundary = options.get("boundary", "")
    if not boundary:
        raise MalformedBody(
            "the Content-Type header has no boundary; let the HTTP client set the header instead of setting it yourself"
        )
    found: list[tuple[str, bytes | str]] = []
    chunks: list[bytes] = []
    try:
        # Latin-1 never fails; names of fields are ASCII, and names of files are not used.
        with PushMultipartParser(boundary, max_segment_count=_MAX_PARTS, header_charset="latin1") as parser:
            async for received in request.stream():
                for event in parser.parse(received) if received else ():
                    if isinstance(event, MultipartSegment):
                        part = event
                    elif event is not None:
                        chunks.append(event)
                    else:
                        found.append((part.name or "", _content(part, b"".join(chunks), file_fields)))
                        chunks.clear()
    except MultipartError as error:
        message = str(error)
        cause = next((ours for theirs, ours in _CAUSES.items() if theirs in message), "the body is not a valid form")
        raise MalformedBody(cause) from None
    return found


def _content(part: MultipartSegment, content: bytes, file_fields: Collection[str]) -> bytes | str:
    if part.filename is not None or "filename*" in part.header("Content-Disposition", "").lower():
        return content
    if part.content_type and not part.content_type.startswith(_TEXT_TYPES):
        return content
    try:
        return content.decode(part.charset or "utf-8")
    except (UnicodeDecodeError, LookupError):
        if part.name in file_fields:
            return content
        raise MalformedBody(f"the field {(part.name or '')[:40]} is not {part.charset or 'UTF-8'} text") from None
