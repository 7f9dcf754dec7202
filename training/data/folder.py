"""Records of crops in folders, by identity or as aligned pairs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from models.card import Modality
from models.crop_files import of_system_because
from training.data.images import image_files
from training.data.records import Record
from training.data.skipped import Skipped

__all__ = ["CAMERA_PATTERN", "NO_CAMERA", "camera_of", "read_folder", "read_pairs"]

CAMERA_PATTERN = r"_c(\d+)"
NO_CAMERA = "0"
"""Camera of a file whose name does not contain one."""


def camera_of(path: Path, pattern: re.Pattern[str]) -> str:
    """Return the first group of the pattern's first match in the file name (without suffix), or ``NO_CAMERA``."""
    match = pattern.search(path.stem)
    return match[1] if match else NO_CAMERA


def read_folder(
    root: Path,
    modality: Modality | None = None,
    camera_pattern: str = CAMERA_PATTERN,
    skipped: Skipped | None = None,
) -> list[Record]:
    """Read ``ROOT/{visible,infrared}/IDENTITY/*``, or ``ROOT/IDENTITY/*`` if ``modality`` is given.

    One of the two modality folders may be missing. Files that are not images of an identity are counted in ``skipped``.
    The records are ordered by modality, identity and file name.

    Raises:
        FileNotFoundError: the root or both modality folders are missing.
        ValueError: no image was found, or ``camera_pattern`` is not a regular expression with a group.
    """
    pattern = _compiled(camera_pattern)
    skipped = Skipped() if skipped is None else skipped
    records = [
        Record(path, folder.name, camera_of(path, pattern), kind)
        for kind, top in _tops(root, modality, skipped)
        for folder in _identity_folders(top, skipped)
        for path in image_files(folder, skipped)
    ]
    if not records:
        raise ValueError("; ".join((f"{root}: no image in any identity folder", *skipped.lines())))
    return records


def read_pairs(root: Path, skipped: Skipped | None = None) -> list[Record]:
    """Read ``ROOT/{visible,infrared}/NAME``: aligned pairs, each name a separate identity.

    Visible images get camera "1", infrared ones "2". Files that are not images are counted in ``skipped``.

    Raises:
        FileNotFoundError: one of the two folders is missing.
        ValueError: the names in the two folders differ, or there is no image.
    """
    skipped = Skipped() if skipped is None else skipped
    tops = _tops(root, None, skipped)
    files = {kind: {path.stem: path for path in image_files(top, skipped)} for kind, top in tops}
    for kind in Modality:
        if kind not in files:
            raise FileNotFoundError(f"{root / kind}: missing")
    visible, infrared = files[Modality.VISIBLE], files[Modality.INFRARED]
    if unpaired := sorted(visible.keys() ^ infrared.keys()):
        raise ValueError(f"{root}: {len(unpaired)} names in only one modality, first {unpaired[0]}")
    if not visible:
        raise ValueError(f"{root}: expected images in its folders visible and infrared, found none")
    return [
        Record(path, name, str(1 + kind.index), kind) for kind, named in files.items() for name, path in named.items()
    ]


def _identity_folders(top: Path, skipped: Skipped) -> Iterator[Path]:
    for path in sorted(top.iterdir()):
        if of_system_because(path.name, folder=path.is_dir()):
            skipped.add("system files and folders", path)
        elif path.is_dir():
            yield path
        else:
            skipped.add("files outside an identity's folder", path)


def _tops(root: Path, modality: Modality | None, skipped: Skipped) -> list[tuple[Modality, Path]]:
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder")
    if modality is not None:
        return [(modality, root)]
    tops = [(kind, root / kind) for kind in Modality if (root / kind).is_dir()]
    if not tops:
        raise FileNotFoundError(
            f"{root}: expected a folder 'visible' or 'infrared' in it (or name a modality, for ROOT/IDENTITY/*)"
        )
    for path in sorted(set(root.iterdir()) - {top for _, top in tops}):
        skipped.add("files and folders beside visible and infrared", path)
    return tops


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"camera pattern {pattern!r}: {error}") from error
    if compiled.groups < 1:
        raise ValueError(f"camera pattern {pattern!r}: expected a group, such as {CAMERA_PATTERN!r}")
    return compiled
