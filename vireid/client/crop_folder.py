"""The crops below a folder: what is read, and what is ignored and why."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from models.crop_files import (
    BROKEN_LINK,
    DEEPEST_FOLDER,
    LINKED_FOLDER,
    LOOPING_LINK,
    NESTED_TOO_DEEPLY,
    UNREADABLE_FILE,
    UNREADABLE_FOLDER,
    display_name,
    ignored_because,
    is_manifest,
)
from vireid.schemas.jobs import ReasonCount

__all__ = ["CropFolder", "count_reasons", "find_crops"]

_MAX_EXAMPLES = 3


@dataclass(slots=True)
class CropFolder:
    """Crops and manifests below ``root``, sorted; ``ignored`` is each other path with the reason."""

    root: Path
    crops: list[Path] = field(default_factory=list)
    manifests: list[Path] = field(default_factory=list)
    ignored: list[tuple[str, str]] = field(default_factory=list)

    def name(self, path: Path) -> str:
        """Return the path below the folder, with forward slashes."""
        return path.relative_to(self.root).as_posix()


def find_crops(root: Path, *, follow_links: bool = False) -> CropFolder:
    """Find every crop below ``root`` by the rule of :mod:`models.crop_files`.

    Links to files are read. Those to folders are read if ``follow_links``, except for one that leads to a folder it is
    in. A folder or file that cannot be read is ignored and named, like everything else that is not sent.
    """
    found = CropFolder(root)
    for path in _files(root, (), found, follow_links=follow_links):
        name = found.name(path)
        if reason := ignored_because(name) or _unreadable(path):
            found.ignored.append((display_name(name), reason))
        else:
            (found.manifests if is_manifest(name) else found.crops).append(path)
    found.crops.sort()
    found.manifests.sort()
    return found


def count_reasons(entries: list[tuple[str, str]]) -> tuple[ReasonCount, ...]:
    """Group names by reason, most frequent first."""
    names: dict[str, list[str]] = {}
    for name, reason in entries:
        names.setdefault(reason, []).append(name)
    return tuple(
        ReasonCount(reason=reason, count=len(found), examples=tuple(found[:_MAX_EXAMPLES]))
        for reason, found in sorted(names.items(), key=lambda item: -len(item[1]))
    )


def _files(folder: Path, parents: tuple[Path, ...], found: CropFolder, *, follow_links: bool) -> Iterator[Path]:
    """Yield every path below ``folder`` that is no folder; count the folders that are not read."""
    here = folder.resolve()
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        found.ignored.append((display_name(found.name(folder)), UNREADABLE_FOLDER))
        return
    for entry in entries:
        path = folder / entry.name
        if not os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises where a link may not be followed
            yield path
        elif reason := _not_entered(path, found.name(path), (*parents, here), follow_links=follow_links):
            found.ignored.append((display_name(found.name(path)), reason))
        else:
            yield from _files(path, (*parents, here), found, follow_links=follow_links)


def _not_entered(path: Path, name: str, parents: tuple[Path, ...], *, follow_links: bool) -> str | None:
    if reason := ignored_because(name, folder=True):
        return reason
    if len(parents) >= DEEPEST_FOLDER:
        return NESTED_TOO_DEEPLY
    if not path.is_symlink():
        return None
    if not follow_links:
        return LINKED_FOLDER
    return LOOPING_LINK if path.resolve() in parents else None


def _unreadable(path: Path) -> str | None:
    if not os.path.isfile(path):  # noqa: PTH113 - as above
        return BROKEN_LINK if path.is_symlink() else "no plain file"
    return None if os.access(path, os.R_OK) else UNREADABLE_FILE
