"""The entries of a body of vectors, one after the other, so that a body never becomes many numbers in memory."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator

from server.domain.errors import ServiceError
from server.domain.validation import invalid

__all__ = ["json_entries", "longest_entry", "ndjson_entries"]

_FIELDS_BYTES = 1 << 16
_BYTES_PER_NUMBER = 32
_BEGIN = re.compile(rb'[ \t\r\n]*\{[ \t\r\n]*"items"[ \t\r\n]*:[ \t\r\n]*\[[ \t\r\n]*')
_NEXT = re.compile(rb"[ \t\r\n]*([,\]])[ \t\r\n]*")
_END = re.compile(rb"\}[ \t\r\n]*\Z")
_decoder = json.JSONDecoder()


def longest_entry(dimension: int) -> int:
    """Return the bytes that an entry with a vector of this dimension may have."""
    return _FIELDS_BYTES + _BYTES_PER_NUMBER * dimension


def json_entries(body: bytes, longest: int) -> Iterator[object]:
    """Yield each entry of the array ``items``, the only member of a JSON object.

    Raises:
        InvalidRequest: the body is no such object, or an entry has more than ``longest`` bytes.
    """
    found = _BEGIN.match(body)
    if found is None:
        raise invalid("body", 'must be JSON with the only field items, an array: {"items": [...]}')
    position, index = found.end(), 0
    open_array = not body.startswith(b"]", position)
    while open_array:
        window = body[position : position + longest].decode(errors="surrogateescape")
        try:
            entry, length = _decoder.raw_decode(window)
        except (ValueError, RecursionError):
            cut = len(body) - position > longest
            fault = f"has more than {longest:,} bytes, or is not valid JSON" if cut else "is not valid JSON"
            raise invalid(f"items[{index}]", fault) from None
        yield entry
        position += len(window[:length].encode(errors="surrogateescape"))
        if (found := _NEXT.match(body, position)) is None:
            raise invalid(f"items[{index}]", "is not followed by a comma or a bracket")
        position, index, open_array = found.end(), index + 1, found[1] == b","
    if _END.match(body, position if index else _NEXT.match(body, position).end()) is None:  # type: ignore[union-attr]
        raise invalid("body", "must end after the array items; it is the only field")


def ndjson_entries(body: bytes, longest: int) -> Iterator[bytes | ServiceError]:
    """Yield each line that is not blank, or what is wrong with it where it has more than ``longest`` bytes."""
    index = 0
    for line in io.BytesIO(body):
        if not line.strip():
            continue
        too_long = len(line) > longest
        yield invalid(f"items[{index}]", f"has more than {longest:,} bytes") if too_long else line
        index += 1
