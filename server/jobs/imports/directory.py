"""Folders of this machine, below a root that the settings allow."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, ClassVar

from server.errors import ArchiveRejected, EntryRejected
from server.jobs.imports.entries import Entry, entry, may_be_hostile

__all__ = ["DirectorySource", "below_a_root"]

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # neither led away by a link nor held by a pipe


def below_a_root(directory: Path, roots: Sequence[Path]) -> Path:
    """The folder with every link resolved.

    Raises:
        EntryRejected: it is not below one of ``roots``, or no folder; which of them is not told.
    """
    try:
        resolved = directory.resolve(strict=True)
        allowed = any(resolved.is_relative_to(root.resolve()) for root in roots) and resolved.is_dir()
    except (OSError, RuntimeError, ValueError):
        allowed = False
    if not allowed:
        raise EntryRejected("is no folder that may be imported; VIREID_IMPORT_ROOTS names where those are")
    return resolved


class DirectorySource:
    """The files below ``folder``, at any depth; links are not followed."""

    start: ClassVar[str] = ""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def entries(self, after: str | None = None) -> Iterator[Entry]:
        """See :class:`Source`; a position is the path: first the files of a folder by name, then its folders."""
        behind = None if after is None else _order(after)
        for here, folders, files, descriptor in os.fwalk(self._folder, onerror=_unreadable):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            above = os.path.relpath(here, self._folder)
            for name in sorted(files):
                path = name if above == "." else f"{above}/{name}"
                if behind is None or _order(path) > behind:
                    found = entry(path, path, partial(_content, name, descriptor))
                    if found is not None:
                        yield found


def _order(path: str) -> list[tuple[bool, str]]:
    *folders, file = path.split("/")
    return [(True, folder) for folder in folders] + [(False, file)]


def _unreadable(error: OSError) -> None:
    raise ArchiveRejected("the folder, or one in it, is gone or cannot be read") from error


@contextmanager
def _content(name: str, folder: int) -> Iterator[IO[bytes]]:
    with (
        may_be_hostile(lambda: EntryRejected("it is a link, or cannot be read")),
        os.fdopen(os.open(name, _FLAGS, dir_fd=folder), "rb") as file,
    ):
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise EntryRejected("it is no plain file")
        yield file
