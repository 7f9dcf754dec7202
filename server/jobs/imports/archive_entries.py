"""The files of an upload, one after the other, whatever it is packed in.

Sources run in a reader process (``server.jobs.reader_process``), so this module and those of the sources import little.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import IO, Any, ClassVar, Protocol

from models.crop_files import InvalidPath, display_name, ignored_because, relative_path
from server.domain.errors import ArchiveRejected, EntryRejected, ImageTooLarge, ServiceError
from server.jobs.report import ReasonCounts

__all__ = ["MAX_ENTRIES", "Entry", "Opener", "Position", "Source", "damaged", "make_entry", "may_be_hostile"]

MAX_ENTRIES = 5_000_000
"""Entries of one upload; more than that is refused before anything is imported."""

log = logging.getLogger(__name__)

Position = Any
"""Where an entry stands in its source, as JSON: the same at every reading."""

Opener = Callable[[], AbstractContextManager[IO[bytes]]]


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of an upload. ``path`` is safe to use; an entry with a ``fault`` is not read, for that reason.

    It can be opened until the next entry is requested.
    """

    path: str
    position: Position
    open: Opener
    fault: EntryRejected | None = None

    def read(self, limit: int) -> bytes:
        """Return the content.

        Raises:
            EntryRejected: it has a fault, or cannot be read.
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
    """An upload of files. Its order never changes; ``start`` is the position before the first entry."""

    start: ClassVar[Position]

    def entries(self, after: Position | None = None, ignored: ReasonCounts | None = None) -> Iterator[Entry]:
        """Yield every file behind position ``after``. Folders are left out, and so is what ``ignored_because`` names.

        With ``ignored`` the pass is a survey: what is left out is counted there, and only manifests can be opened.

        Raises:
            ArchiveRejected: the upload is damaged, or of another format.
        """


def make_entry(
    name: str,
    position: Position,
    open: Opener,
    fault: str | None = None,
    *,
    ignored: ReasonCounts | None,
    any_file: bool = False,
) -> Entry | None:
    """Return the entry of that name; None for one that is ignored, which is counted in ``ignored``.

    With ``any_file`` nothing is ignored: it need not be a crop.
    """
    try:
        path = relative_path(name)
    except InvalidPath as error:
        reason = ignored_because(name.replace("\\", "/"))
        if reason == "system file":  # macOS names a file Icon\r
            if ignored is not None:
                ignored.add(reason, display_name(name))
            return None
        return Entry(display_name(name), position, open, EntryRejected(str(error)))
    if not any_file and (reason := ignored_because(path)):
        if ignored is not None:
            ignored.add(reason, path)
        return None
    return Entry(path, position, open, None if fault is None else EntryRejected(fault))


@contextmanager
def may_be_hostile(refused: Callable[[], ServiceError]) -> Iterator[None]:
    """Turn any exception of the block that is not a ``ServiceError`` into ``refused()``.

    Readers raise many types on malicious input. ``MemoryError`` passes: it tells that a limit was reached.
    """
    try:
        yield
    except (ServiceError, MemoryError):
        raise
    except Exception as error:
        log.info("a part of an upload cannot be read", exc_info=True)
        raise refused() from error


def damaged(position: int) -> ArchiveRejected:
    """Return the error for an archive that cannot be read beyond so many members."""
    return ArchiveRejected(f"the archive is damaged or cut off after {position:,} members")
