"""The files of an upload, one after the other, whatever it is packed in."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import IO, Any, ClassVar, Protocol

from server.errors import ArchiveRejected, EntryRejected, ImageTooLarge, ServiceError
from server.jobs.imports.naming import checked_path, shown

__all__ = ["MAX_ENTRIES", "Entry", "Position", "Source", "damaged", "entry", "may_be_hostile"]

MAX_ENTRIES = 5_000_000
"""Entries of one upload; more than that is refused before anything is imported."""

log = logging.getLogger(__name__)

Position = Any
"""Where an entry stands in its source, as JSON: the same at every reading."""

Opener = Callable[[], AbstractContextManager[IO[bytes]]]


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of an upload. ``path`` is checked; where ``fault`` is set, the file is not taken, for that reason.

    It can be opened until the next entry is asked for.
    """

    path: str
    position: Position
    open: Opener
    fault: EntryRejected | None = None

    def read(self, limit: int) -> bytes:
        """The content.

        Raises:
            EntryRejected: it is not taken, or cannot be read.
            ImageTooLarge: it has more than ``limit`` bytes.
        """
        if self.fault is not None:
            raise self.fault
        with self.open() as file:
            data = file.read(limit + 1)
        if len(data) > limit:
            raise ImageTooLarge(f"it has more than {limit:,} bytes, which are the most that are taken")
        return data


class Source(Protocol):
    """An upload of files. Its order never changes; ``start`` is the position before the first."""

    start: ClassVar[Position]

    def entries(self, after: Position | None = None) -> Iterator[Entry]:
        """Every file, those that come after a position; folders and hidden files are passed over.

        Raises:
            ArchiveRejected: the upload is damaged, or not what it says it is.
        """


def entry(name: str, position: Position, open: Opener, fault: str | None = None) -> Entry | None:
    """The entry of that name; None for one that is hidden: a part of its path begins with a dot, or is ``__MACOSX``."""
    try:
        path = checked_path(name)
    except EntryRejected as error:
        return Entry(shown(name), position, open, error)
    if any(part.startswith(".") or part == "__MACOSX" for part in path.split("/")):
        return None
    return Entry(path, position, open, None if fault is None else EntryRejected(fault))


@contextmanager
def may_be_hostile(refused: Callable[[], ServiceError]) -> Iterator[None]:
    """Any exception of the block that is not ours becomes ``refused()``: readers raise many types on hostile input."""
    try:
        yield
    except ServiceError:
        raise
    except Exception as error:
        log.info("a part of an upload cannot be read", exc_info=True)
        raise refused() from error


def damaged(position: int) -> ArchiveRejected:
    """The archive cannot be read beyond so many members."""
    return ArchiveRejected(f"the archive is damaged or cut off after {position:,} members")
