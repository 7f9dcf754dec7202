"""SYSU-MM01: visible and near-infrared pedestrians from six cameras, read from the published folders.

Wu, Zheng, Yu, Gong, Lai, "RGB-Infrared Cross-Modality Person Re-Identification", ICCV 2017. The images need a
signed agreement with the authors and must not be passed on; the gallery permutation is published in
wuancong/SYSU-MM01.

::

    ROOT/cam1 … cam6/IDENTITY (4 digits)/NUMBER (4 digits).jpg
    ROOT/exp/train_id.txt, val_id.txt, test_id.txt       one comma-separated line each
    ROOT/exp/rand_perm_cam.mat                           official gallery permutation

Cameras 1, 2 (indoor), 4, 5 (outdoor) are visible; 3 (the room of camera 2, in the dark) and 6 (outdoor) infrared.

=====================  ==========  =======  ========
subset                 identities  visible  infrared
=====================  ==========  =======  ========
train                         296   20,284     9,929
validation                     99    1,974     1,980
train and validation          395   22,258    11,909
test                           96    6,775     3,803
all, 22 unused ids too        513   30,071    15,792
=====================  ==========  =======  ========

The validation identities occur only in cameras 3, 4 and 5.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Container, Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from models.card import Modality
from training.data.index_file import first_missing, read_identities, stray_files
from training.data.records import Record
from training.data.report import Report, compare

__all__ = [
    "CAMERAS",
    "COUNTS",
    "NAME",
    "Split",
    "check",
    "evaluation_records",
    "identities_of",
    "permutation",
    "training_records",
]

NAME = "SYSU-MM01"

CAMERAS: Mapping[str, Modality] = MappingProxyType(
    {str(n): Modality.INFRARED if n in (3, 6) else Modality.VISIBLE for n in range(1, 7)}
)
"""Modality of each camera."""

_PERMUTATION = Path("exp", "rand_perm_cam.mat")
_CELLS = "camera and identity cells as in rand_perm_cam.mat"


class Split(StrEnum):
    """A list of identities in ``exp``; the value is the prefix of the file name."""

    TRAIN = "train"
    VALIDATION = "val"
    TEST = "test"


COUNTS: Mapping[str, int] = MappingProxyType(
    {
        "train identities": 296,
        "train visible images": 20_284,
        "train infrared images": 9_929,
        "val identities": 99,
        "val visible images": 1_974,
        "val infrared images": 1_980,
        "test identities": 96,
        "test visible images": 6_775,
        "test infrared images": 3_803,
        **{
            f"{part} {what} of cam{camera}": number
            for part, what, numbers in (
                ("train+val", "images", (4721, 5753, 7909, 5811, 5973, 4000)),
                ("train+val", "identities", (194, 195, 392, 382, 390, 200)),
                ("test", "images", (1374, 1565, 1883, 1918, 1918, 1920)),
                ("test", "identities", (56, 56, 93, 94, 95, 96)),
            )
            for camera, number in zip(CAMERAS, numbers, strict=True)
        },
        "all visible images": 30_071,
        "all infrared images": 15_792,
        _CELLS: 2_298,
    }
)
"""Published and derived counts of a complete copy."""


def training_records(root: Path, identities: Literal[296, 395] = 395) -> list[Record]:
    """Read the images of the training identities: 395 with the validation split, as in the literature, or 296.

    Raises:
        FileNotFoundError: a list of identities or a camera's folder is missing.
        ValueError: a list is malformed, or ``identities`` is neither 296 nor 395.
    """
    if identities not in (296, 395):
        raise ValueError(f"expected 296 or 395 training identities, got {identities}")
    splits = [Split.TRAIN, Split.VALIDATION] if identities == 395 else [Split.TRAIN]
    return _read(root, {f"{number:04d}" for split in splits for number in identities_of(root, split)})


def evaluation_records(root: Path, modality: Modality, split: Split = Split.TEST) -> list[Record]:
    """Read all images of one modality: the queries are infrared, the gallery is visible.

    Raises:
        FileNotFoundError: the list of identities or a camera's folder is missing.
        ValueError: the list is malformed.
    """
    identities = {f"{number:04d}" for number in identities_of(root, split)}
    return [r for r in _read(root, identities) if r.modality is modality]


def identities_of(root: Path, split: Split) -> list[int]:
    """Read the identity numbers of a split.

    Raises:
        FileNotFoundError: the list is missing.
        ValueError: the list is malformed.
    """
    return read_identities(root / "exp" / f"{split}_id.txt")


def permutation(file: Path) -> dict[tuple[int, int], NDArray[np.int64]]:
    """Read the official gallery permutation: (camera, identity) → image numbers ``[10, n]``, one row per trial.

    Cells without images are omitted. The 8-bit integers of the file are converted to int64.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not a permutation file.
    """
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        content = loadmat(file)
    except (MatReadError, EOFError, NotImplementedError, TypeError, ValueError, zlib.error) as error:
        raise ValueError(f"{file}: not a readable MATLAB file ({error})") from error
    if "rand_perm_cam" not in content:
        raise ValueError(f"{file}: expected the variable rand_perm_cam")
    cells = {}
    for camera, of_identity in enumerate(content["rand_perm_cam"].ravel(), 1):
        for identity, cell in enumerate(of_identity.ravel(), 1):
            if cell.size:
                rows = cell.astype(np.int64)
                if (np.sort(rows, axis=1) != np.arange(1, rows.shape[1] + 1)).any():
                    raise ValueError(f"{file}: camera {camera}, identity {identity} is not a permutation of 1 … n")
                cells[camera, identity] = rows
    return cells


def check(root: Path, expected: Mapping[str, int] = COUNTS) -> Report:
    """Compare a copy with the published counts; the first missing folder or file is the report's problem."""
    try:
        numbers = {split: identities_of(root, split) for split in Split}
        everything = _read(root)
    except (FileNotFoundError, ValueError) as error:
        return Report(NAME, root, problem=str(error))
    found = _tally(everything, numbers)
    problem = first_missing([root / _PERMUTATION])
    if problem is None:
        try:
            found[_CELLS] = _agreeing_cells(everything, permutation(root / _PERMUTATION))
        except ValueError as error:
            problem = str(error)
    stray = stray_files((root / f"cam{camera}" for camera in CAMERAS), (r.path for r in everything))
    return Report(NAME, root, compare(expected, found), problem, stray)


def _read(root: Path, identities: Container[str] | None = None) -> list[Record]:
    """Read all images, or those of some identities, ordered by camera, identity and number."""
    if problem := first_missing(root / f"cam{camera}" for camera in CAMERAS):
        raise FileNotFoundError(problem)
    return [
        Record(path, folder.name, camera, modality)
        for camera, modality in CAMERAS.items()
        for folder in sorted((root / f"cam{camera}").glob("[0-9][0-9][0-9][0-9]"))
        if identities is None or folder.name in identities
        for path in sorted(folder.glob("[0-9][0-9][0-9][0-9].jpg"))
    ]


def _tally(everything: Iterable[Record], numbers: Mapping[Split, list[int]]) -> Counter[str]:
    split_of = {f"{number:04d}": split for split, listed in numbers.items() for number in listed}
    found = Counter({f"{split} identities": len(listed) for split, listed in numbers.items()})
    seen = set()
    for record in everything:
        found[f"all {record.modality} images"] += 1
        if split := split_of.get(record.identity):
            found[f"{split} {record.modality} images"] += 1
            part = "test" if split is Split.TEST else "train+val"
            found[f"{part} images of cam{record.camera}"] += 1
            seen.add((part, record.camera, record.identity))
    for part, camera, _ in seen:
        found[f"{part} identities of cam{camera}"] += 1
    return found


def _agreeing_cells(everything: Iterable[Record], permuted: Mapping[tuple[int, int], NDArray[np.int64]]) -> int:
    """Count the cells whose images are numbered 1 … n without a gap, with n of the permutation."""
    numbers: dict[tuple[int, int], list[int]] = {}
    for record in everything:
        cell = int(record.camera), int(record.identity)
        numbers.setdefault(cell, []).append(int(record.path.stem))
    return sum(
        sorted(listed) == list(range(1, permuted[cell].shape[1] + 1))
        for cell, listed in numbers.items()
        if cell in permuted
    )
