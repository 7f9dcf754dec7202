"""Paths of crops: which are taken, and which item ids they become."""

from __future__ import annotations

import hashlib
import re
import unicodedata

from server.errors import EntryRejected

__all__ = ["LONGEST_PATH", "checked_path", "id_of", "shown"]

LONGEST_PATH = 1024
"""Characters of a path."""

_LONGEST_ID = 128
_NOT_IN_ID = re.compile(r"[^A-Za-z0-9._-]")
_DRIVE = re.compile(r"[A-Za-z]:[/\\]")
_LONGEST_SHOWN = 256


def id_of(path: str) -> str:
    """The item id of a relative path: the same path always gives the same id, two paths never do.

    Slashes become colons. A path that has other characters than an id may have, or too many, ends in a hash of itself.
    """
    plain = path.replace("/", ":")
    if len(plain) <= _LONGEST_ID and not any(_NOT_IN_ID.search(part) for part in path.split("/")):
        return plain
    mark = "." + hashlib.sha256(path.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return re.sub(r"[^A-Za-z0-9._:-]", "_", plain)[: _LONGEST_ID - len(mark)] + mark


def checked_path(name: str) -> str:
    """A name from outside as a relative path with single forward slashes and without ``.`` parts.

    Raises:
        EntryRejected: it is absolute, leads upwards, is too long, empty, or not made of characters alone.
    """
    if len(name) > LONGEST_PATH:
        raise EntryRejected(f"its path has {len(name):,} characters; at most {LONGEST_PATH:,} are taken")
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in name):
        raise EntryRejected("its path has control characters or is not UTF-8")
    if name.startswith("/") or _DRIVE.match(name):
        raise EntryRejected("its path is absolute; paths below the archive are taken")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise EntryRejected("its path leads out of the archive")
    if not parts:
        raise EntryRejected("it has no name")
    return "/".join(parts)


def shown(name: str) -> str:
    """A name from outside, harmless in a list: what cannot be printed is replaced, what is long is cut."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name[:_LONGEST_SHOWN])
