"""Opaque cursors over lists that are sorted by a string."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import TypeVar

from server.api.errors import invalid

__all__ = ["after", "cursor", "page"]

Entry = TypeVar("Entry")


def cursor(key: str) -> str:
    """The cursor of the page that begins behind ``key``."""
    return base64.urlsafe_b64encode(key.encode()).decode("ascii")


def after(cursor: str | None) -> str | None:
    """The sort key that a page begins behind; None: the first page.

    Raises:
        InvalidRequest: this server never gave that cursor.
    """
    if cursor is None:
        return None
    try:
        return base64.urlsafe_b64decode(cursor.encode("ascii")).decode()
    except (UnicodeError, binascii.Error):
        raise invalid("cursor", "is not the next_cursor of a page") from None


def number_after(cursor: str | None) -> int | None:
    """The same for a list that is sorted by a number.

    Raises:
        InvalidRequest: this server never gave that cursor.
    """
    behind = after(cursor)
    if behind is not None and not behind.isdecimal():
        raise invalid("cursor", "is not the next_cursor of a page")
    return None if behind is None else int(behind)


def page(entries: Sequence[Entry], limit: int, key: Callable[[Entry], str]) -> tuple[Sequence[Entry], str | None]:
    """The first ``limit`` of ``limit + 1`` entries asked for, and the cursor of the next page if there is one."""
    if len(entries) <= limit:
        return entries, None
    kept = entries[:limit]
    return kept, cursor(key(kept[-1]))
