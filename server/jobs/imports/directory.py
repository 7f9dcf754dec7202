"""Import source: a folder of this machine below one of the allowed import roots."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, ClassVar

from models.crop_files import (
    DEEPEST_FOLDER,
    LINKED_FOLDER,
    LOOPING_LINK,
    NESTED_TOO_DEEPLY,
    UNREADABLE_FOLDER,
    display_name,
    ignored_because,
)
from server.domain.errors import ArchiveRejected, EntryRejected
from server.jobs.imports.archive_entries import Entry, Opener, make_entry, may_be_hostile
from server.jobs.imports.progress import report_progress
from server.jobs.report import ReasonCounts

__all__ = ["DirectorySource", "below_a_root"]

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # do not follow links, do not block on pipes

_Identity = tuple[int, int]


def below_a_root(directory: Path, roots: Sequence[Path]) -> Path:
    """Return the folder with every link resolved.

    Raises:
        EntryRejected: it is not below one of ``roots``, or not a folder; the message does not say which.
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
    """The files below ``folder``, at any depth. Links are followed only to what lies below one of ``linked_roots``."""

    start: ClassVar[str] = ""

    def __init__(self, folder: Path, linked_roots: Sequence[Path] = ()) -> None:
        self._folder, self._roots = folder, [root.resolve() for root in linked_roots]

    def entries(self, after: str | None = None, ignored: ReasonCounts | None = None) -> Iterator[Entry]:
        """See :class:`Source`. A position is a path; the files of a folder come before its subfolders, each by name."""
        behind = None if after is None else _order(after)
        counts = ReasonCounts() if ignored is None else ignored
        for path, content in self._files("", self._folder, (), counts):
            if behind is None or _order(path) > behind:
                found = make_entry(path, path, content, ignored=ignored)
                if found is not None:
                    yield found

    def _files(
        self, above: str, folder: Path, parents: tuple[_Identity, ...], ignored: ReasonCounts
    ) -> Iterator[tuple[str, Opener]]:
        """Yield path and content of every file below ``folder``, which lies at ``above`` in the import."""
        try:
            descriptor = os.open(folder, _FLAGS | os.O_DIRECTORY)
        except OSError as error:
            if not above:
                raise ArchiveRejected("the folder no longer exists or cannot be read") from error
            ignored.add(UNREADABLE_FOLDER, display_name(above))
            return
        try:
            here = _identity(descriptor)
            if len(parents) >= DEEPEST_FOLDER:
                ignored.add(NESTED_TOO_DEEPLY, display_name(above))
                return
            if here in parents:
                ignored.add(LOOPING_LINK, display_name(above))
                return
            folders = []
            for found in sorted(os.scandir(descriptor), key=lambda found: found.name):
                report_progress()
                path = f"{above}/{found.name}" if above else found.name
                if _is_folder(found):
                    folders.append((path, found))
                else:
                    yield path, partial(self._content, found, folder, descriptor)
            for path, found in folders:
                if reason := self._left_out(path, found, folder):
                    ignored.add(reason, display_name(path))
                else:
                    yield from self._files(path, (folder / found.name).resolve(), (*parents, here), ignored)
        finally:
            os.close(descriptor)

    def _left_out(self, path: str, found: os.DirEntry[str], folder: Path) -> str | None:
        """Return why a subfolder is not read."""
        if reason := ignored_because(path, folder=True):
            return reason
        if found.is_symlink() and self._target(found, folder) is None:
            return LINKED_FOLDER
        return None

    def _target(self, found: os.DirEntry[str], folder: Path) -> Path | None:
        """Return what a link leads to if it may be followed."""
        target = (folder / found.name).resolve()
        return target if any(target.is_relative_to(root) for root in self._roots) else None

    @contextmanager
    def _content(self, found: os.DirEntry[str], folder: Path, descriptor: int) -> Iterator[IO[bytes]]:
        with may_be_hostile(lambda: EntryRejected("it is a link, or cannot be read")):
            target = self._target(found, folder) if found.is_symlink() else None
            opened = os.open(found.name, _FLAGS, dir_fd=descriptor) if target is None else os.open(target, _FLAGS)
            with os.fdopen(opened, "rb") as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise EntryRejected("it is no plain file")
                yield file


def _is_folder(found: os.DirEntry[str]) -> bool:
    try:
        return found.is_dir()
    except OSError:  # a link to itself, or through a folder that cannot be entered
        return False


def _identity(descriptor: int) -> _Identity:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino


def _order(path: str) -> list[tuple[bool, str]]:
    *folders, file = path.split("/")
    return [(True, folder) for folder in folders] + [(False, file)]
