"""RegDB: aligned visible and thermal (8–14 µm) images of 412 people, read from the published folders.

Nguyen, Hong, Kim, Park, "Person Recognition System Based on a Combination of Body Images from Visible Light and
Thermal Cameras", Sensors 2017. The images are available on request and must not be passed on.

::

    ROOT/Visible/IDENTITY/*.bmp   ROOT/Thermal/IDENTITY/*.bmp
    ROOT/idx/{train,test}_{visible,thermal}_{1 … 10}.txt       lines "relative/path label"

412 identities with 10 visible and 10 thermal images each: 8,240. A trial's index files take 206 identities for
training (2,060 + 2,060 images) and the other 206 for testing. Ten trials need ten separately trained models; a model is
evaluated only on the split of its own trial.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from models.card import Modality
from training.data.index_file import first_missing, read_image_list, stray_files
from training.data.records import Record
from training.data.report import Report, compare

__all__ = ["CAMERAS", "COUNTS", "NAME", "TRIALS", "check", "evaluation_records", "training_records"]

NAME = "RegDB"

TRIALS = range(1, 11)

CAMERAS: Mapping[str, Modality] = MappingProxyType({"1": Modality.VISIBLE, "2": Modality.INFRARED})
"""The data set has one camera per modality; the numbers are ours."""

_WORDS = {Modality.VISIBLE: "visible", Modality.INFRARED: "thermal"}

COUNTS: Mapping[str, int] = MappingProxyType(
    {
        "identities": 412,
        "visible images": 4_120,
        "infrared images": 4_120,
        **{
            f"trial {trial} {part} {what}": number
            for trial in TRIALS
            for part in ("train", "test")
            for what, number in (("identities", 206), ("visible images", 2_060), ("infrared images", 2_060))
        },
        "identities in train and test of one trial": 0,
    }
)
"""Published counts of a complete copy."""


def training_records(root: Path, trial: int) -> list[Record]:
    """Read the training images of a trial 1 … 10, in the order of its index files.

    Raises:
        FileNotFoundError: an index file, or an image that it lists, is missing.
        ValueError: the trial does not exist, or an index file is malformed.
    """
    return [record for modality in Modality for record in _listed(root, "train", trial, modality)]


def evaluation_records(root: Path, trial: int, modality: Modality) -> list[Record]:
    """Read the test images of one modality of a trial 1 … 10: the queries or the gallery.

    Raises:
        FileNotFoundError: an index file, or an image that it lists, is missing.
        ValueError: the trial does not exist, or an index file is malformed.
    """
    return _listed(root, "test", trial, modality)


def check(root: Path, expected: Mapping[str, int] = COUNTS) -> Report:
    """Compare a copy with the published counts; the first missing folder or file is the report's problem."""
    tops = [root / _WORDS[modality].capitalize() for modality in Modality]
    if problem := first_missing(tops):
        return Report(NAME, root, problem=problem)
    images = {modality: sorted(top.glob("*/*.bmp")) for modality, top in zip(Modality, tops, strict=True)}
    found = Counter({f"{modality} images": len(paths) for modality, paths in images.items()})
    found["identities"] = len({path.parent.name for paths in images.values() for path in paths})
    problem = None
    try:
        for trial in TRIALS:
            found += _tally(root, trial)
    except (FileNotFoundError, ValueError) as error:
        problem = str(error)
    stray = stray_files(tops, (path for paths in images.values() for path in paths))
    return Report(NAME, root, compare(expected, found), problem, stray)


def _listed(root: Path, part: Literal["train", "test"], trial: int, modality: Modality) -> list[Record]:
    if trial not in TRIALS:
        raise ValueError(f"expected a trial from {TRIALS[0]} to {TRIALS[-1]}, got {trial}")
    camera = next(camera for camera, kind in CAMERAS.items() if kind is modality)
    index = root / "idx" / f"{part}_{_WORDS[modality]}_{trial}.txt"
    return [Record(path, path.parent.name, camera, modality) for path in read_image_list(index, root)]


def _tally(root: Path, trial: int) -> Counter[str]:
    parts = {
        "train": training_records(root, trial),
        "test": [record for modality in Modality for record in evaluation_records(root, trial, modality)],
    }
    found: Counter[str] = Counter()
    people = {part: {r.identity for r in listed} for part, listed in parts.items()}
    for part, listed in parts.items():
        found[f"trial {trial} {part} identities"] = len(people[part])
        for record in listed:
            found[f"trial {trial} {part} {record.modality} images"] += 1
    found["identities in train and test of one trial"] = len(people["train"] & people["test"])
    return found
