"""Opaque cursors of lists that are sorted by a string or a number."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import TypeVar

from server.domain.validation import InvalidRequest, invalid

__all__ = ["decode_cursor", "decode_number_cursor", "encode_cursor", "invalid_cursor", "split_page"]

Entry = TypeVar("Entry")

_LARGEST_NUMBER = 2**63 - 1  # of a database


def encode_cursor(key: str) -> str:
    """Return the cursor of the page that starts after the sort key ``key``."""
    return base64.urlsafe_b64encode(key.encode()).decode("ascii")


def decode_cursor(cursor: str | None) -> str | None:
    """Return the sort key after which a page starts; None: the first page.

    Raises:
        InvalidRequest: the cursor was not made by this server.
    """
    if cursor is None:
        return None
    try:
        return base64.urlsafe_b64decode(cursor.encode("ascii")).decode()
    except (UnicodeError, binascii.Error):
        raise invalid_cursor() from None


def decode_number_cursor(cursor: str | None) -> int | None:
    """Like :func:`decode_cursor`, for a list that is sorted by a number."""
    key = decode_cursor(cursor)
    if key is None:
        return None
    if not (key.isascii() and key.isdecimal()) or int(key) > _LARGEST_NUMBER:
        raise invalid_cursor()
    return int(key)


def invalid_cursor() -> InvalidRequest:
    """Return the error of a cursor that was not made by this server."""
    return invalid("cursor", "is not the next_cursor of a page")


def split_page(entries: Sequence[Entry], limit: int, key: Callable[[Entry], str]) -> tuple[Sequence[Entry], str | None]:
    """Return the first ``limit`` of at most ``limit + 1`` entries, and the cursor of the next page if there is one."""
    if len(entries) <= limit:
        return entries, None
    page = entries[:limit]
    return page, encode_cursor(key(page[-1]))
