"""LLCM: visible and near-infrared pedestrians in low light from nine cameras, read from the published folders.

Zhang, Wang, "Diverse Embedding Expansion Network and Low-Light Cross-Modality Benchmark for Visible-Infrared
Person Re-identification", CVPR 2023. The images need a signed agreement with the authors and must not be passed
on.

::

    ROOT/vis/IDENTITY/*.jpg   ROOT/nir/IDENTITY/*.jpg             such as 0351_c06_s200656_f4830_nir.jpg
    ROOT/idx/train_vis.txt, train_nir.txt                         lines "relative/path label"
    ROOT/idx/test_id.txt                                          one comma-separated line
    ROOT/test_vis/cam1 … cam9/IDENTITY/*.jpg
    ROOT/test_nir/cam1, 2, 4 … 9/IDENTITY/*.jpg                   there is no cam3

=======  ==========  =======  ========
subset   identities  visible  infrared
=======  ==========  =======  ========
train           713   16,946    13,975
test            351    8,680     7,166
all           1,064   25,626    21,141
=======  ==========  =======  ========

The text of the paper states 13,909 test images; only 15,846 is consistent with its total of 46,767.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from models.card import Modality
from training.data.index_file import first_missing, read_identities, read_image_list, stray_files
from training.data.records import Record
from training.data.report import Report, compare

__all__ = ["CAMERAS", "COUNTS", "NAME", "check", "evaluation_records", "training_records"]

NAME = "LLCM"

CAMERAS: Mapping[Modality, tuple[str, ...]] = MappingProxyType(
    {
        Modality.VISIBLE: tuple("123456789"),
        Modality.INFRARED: tuple("12456789"),
    }
)
"""Cameras of the test images of each modality."""

_WORDS = {Modality.VISIBLE: "vis", Modality.INFRARED: "nir"}
_CAMERA = re.compile(r"_c(\d+)_")

COUNTS: Mapping[str, int] = MappingProxyType(
    {
        "train identities": 713,
        "train visible images": 16_946,
        "train infrared images": 13_975,
        "test identities": 351,
        "test visible images": 8_680,
        "test infrared images": 7_166,
        "identities in train and test": 0,
    }
)
"""Published counts of a complete copy."""


def training_records(root: Path) -> list[Record]:
    """Read the training images in the order of the index files, visible first.

    Raises:
        FileNotFoundError: an index file, or an image that it lists, is missing.
        ValueError: an index file is malformed, or a file name does not contain the camera.
    """
    return [
        Record(path, path.parent.name, _camera_of(path), modality)
        for modality in Modality
        for path in read_image_list(root / "idx" / f"train_{_WORDS[modality]}.txt", root)
    ]


def evaluation_records(root: Path, modality: Modality) -> list[Record]:
    """Read all test images of one modality, ordered by camera, identity and name.

    Raises:
        FileNotFoundError: the list of identities or a camera's folder is missing.
        ValueError: the list is malformed.
    """
    top = root / f"test_{_WORDS[modality]}"
    folders = {camera: top / f"cam{camera}" for camera in CAMERAS[modality]}
    names = [f"{number:04d}" for number in sorted(read_identities(root / "idx" / "test_id.txt"))]
    if problem := first_missing(folders.values()):
        raise FileNotFoundError(problem)
    return [
        Record(path, name, camera, modality)
        for camera, folder in folders.items()
        for name in names
        for path in sorted((folder / name).glob("*.jpg"))
    ]


def check(root: Path, expected: Mapping[str, int] = COUNTS) -> Report:
    """Compare a copy with the published counts; the first missing folder or file is the report's problem."""
    try:
        parts = {
            "train": training_records(root),
            "test": [record for modality in Modality for record in evaluation_records(root, modality)],
        }
    except (FileNotFoundError, ValueError) as error:
        return Report(NAME, root, problem=str(error))
    found: Counter[str] = Counter()
    people = {part: {r.identity for r in listed} for part, listed in parts.items()}
    for part, listed in parts.items():
        found[f"{part} identities"] = len(people[part])
        for record in listed:
            found[f"{part} {record.modality} images"] += 1
    found["identities in train and test"] = len(people["train"] & people["test"])
    tops = [root / f"test_{word}" for word in _WORDS.values()]
    stray = stray_files(tops, (r.path for r in parts["test"]))
    return Report(NAME, root, compare(expected, found), stray=stray)


def _camera_of(path: Path) -> str:
    match = _CAMERA.search(path.name)
    if match is None:
        raise ValueError(f"{path}: expected the camera in the name, as in 0351_c06_s200656_f4830_nir.jpg")
    return str(int(match[1]))
