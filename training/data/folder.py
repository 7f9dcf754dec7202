"""Records from folders of crops, as people lay them out."""

from __future__ import annotations

import re
from pathlib import Path

from models.card import Modality
from training.data.images import image_files
from training.data.records import Record

__all__ = ["CAMERA_PATTERN", "NO_CAMERA", "camera_of", "read_folder", "read_pairs"]

CAMERA_PATTERN = r"_c(\d+)"
NO_CAMERA = "0"
"""Camera of a file whose name does not tell it."""


def camera_of(path: Path, pattern: re.Pattern[str]) -> str:
    """First group of the pattern's first match in the file's name (without suffix), or ``NO_CAMERA``."""
    match = pattern.search(path.stem)
    return match[1] if match else NO_CAMERA


def read_folder(root: Path, modality: Modality | None = None, camera_pattern: str = CAMERA_PATTERN) -> list[Record]:
    """Records of ``ROOT/{visible,infrared}/IDENTITY/*``, or of ``ROOT/IDENTITY/*`` when ``modality`` is given.

    Either of the two modality folders may be missing, not both. Files that are no images and folders that begin
    with a dot are ignored. The order is that of modality, identity and file name.

    Raises:
        FileNotFoundError: the root or both modality folders are missing.
        ValueError: no image was found, or ``camera_pattern`` is no regular expression with a group.
    """
    pattern = _compiled(camera_pattern)
    records = [
        Record(path, folder.name, camera_of(path, pattern), kind)
        for kind, top in _tops(root, modality)
        for folder in sorted(top.iterdir())
        if folder.is_dir() and folder.name[0] != "."
        for path in image_files(folder)
    ]
    if not records:
        raise ValueError(f"{root}: no image in any identity's folder")
    return records


def read_pairs(root: Path) -> list[Record]:
    """Records of ``ROOT/{visible,infrared}/NAME``: aligned pairs, each name an identity of its own.

    Visible pictures get camera "1", infrared ones "2".

    Raises:
        FileNotFoundError: one of the two folders is missing.
        ValueError: the two folders hold different names, or none.
    """
    tops = _tops(root, None)
    files = {kind: {path.stem: path for path in image_files(top)} for kind, top in tops}
    for kind in Modality:
        if kind not in files:
            raise FileNotFoundError(f"{root / kind}: missing")
    visible, infrared = files[Modality.VISIBLE], files[Modality.INFRARED]
    if alone := sorted(visible.keys() ^ infrared.keys()):
        raise ValueError(f"{root}: {len(alone)} names in one modality only, first {alone[0]}")
    if not visible:
        raise ValueError(f"{root}: no image")
    return [
        Record(path, name, str(1 + kind.index), kind) for kind, named in files.items() for name, path in named.items()
    ]


def _tops(root: Path, modality: Modality | None) -> list[tuple[Modality, Path]]:
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder")
    if modality is not None:
        return [(modality, root)]
    tops = [(kind, root / kind) for kind in Modality if (root / kind).is_dir()]
    if not tops:
        raise FileNotFoundError(
            f"{root}: expected a folder 'visible' or 'infrared' in it (or a modality, for ROOT/IDENTITY/*)"
        )
    return tops


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"camera pattern {pattern!r}: {error}") from error
    if compiled.groups < 1:
        raise ValueError(f"camera pattern {pattern!r}: expected a group, such as {CAMERA_PATTERN!r}")
    return compiled
