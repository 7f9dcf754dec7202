"""Is this folder a complete data set? Finds out which one it is and compares it with what is published."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import StrEnum
from pathlib import Path

from models.card import Modality
from training.data import llcm, regdb, sysu_mm01
from training.data.folder import read_folder, read_pairs
from training.data.images import image_files
from training.data.manifest import read_manifest
from training.data.records import Record
from training.data.report import Count, Report

__all__ = ["Kind", "check", "detect"]


class Kind(StrEnum):
    """What a data set on disk may be."""

    SYSU_MM01 = "sysu-mm01"
    REGDB = "regdb"
    LLCM = "llcm"
    MANIFEST = "manifest"
    PAIRS = "pairs"
    FOLDER = "folder"
    SINGLE_MODALITY = "single-modality"


_BENCHMARKS: dict[Kind, tuple[Callable[[Path], Report], tuple[str, ...]]] = {
    Kind.SYSU_MM01: (sysu_mm01.check, ("exp", *(f"cam{camera}" for camera in sysu_mm01.CAMERAS))),
    Kind.REGDB: (regdb.check, ("Visible", "Thermal")),
    Kind.LLCM: (llcm.check, ("vis", "nir", "test_vis", "test_nir")),
}
"""The check of each published data set, and the folders that give it away."""

_OWN: dict[Kind, Callable[[Path], list[Record]]] = {
    Kind.MANIFEST: read_manifest,
    Kind.PAIRS: read_pairs,
    Kind.FOLDER: read_folder,
    Kind.SINGLE_MODALITY: lambda root: read_folder(root, Modality.VISIBLE),
}


def check(path: Path, kind: str | None = None) -> Report:
    """Check the data set at ``path``: of this ``kind``, or of the one it looks like.

    Raises:
        FileNotFoundError: nothing is at ``path``.
        ValueError: there is no such kind.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    if kind is not None and kind not in set(Kind):
        raise ValueError(f"expected a kind of data set from {', '.join(Kind)}, got {kind!r}")
    found = Kind(kind) if kind is not None else detect(path)
    if found in _BENCHMARKS:
        return _BENCHMARKS[found][0](path)
    try:
        records = _OWN[found](path)
    except (OSError, ValueError) as error:
        return Report(found, path, problem=str(error))
    return Report(found, path, _counts(records, single=found is Kind.SINGLE_MODALITY))


def detect(path: Path) -> Kind:
    """What the data set looks like. Two folders of a published one are enough, so that the rest can be missed."""
    if path.is_file():
        return Kind.MANIFEST
    for kind, (_, folders) in _BENCHMARKS.items():
        if sum((path / folder).is_dir() for folder in folders) >= 2:
            return kind
    tops = [path / modality for modality in Modality if (path / modality).is_dir()]
    if not tops:
        return Kind.SINGLE_MODALITY
    return Kind.PAIRS if any(image_files(top) for top in tops) else Kind.FOLDER


def _counts(records: Iterable[Record], single: bool) -> tuple[Count, ...]:
    people: dict[str, set[Modality]] = {}
    images = dict.fromkeys(Modality, 0)
    cameras = set()
    for record in records:
        people.setdefault(record.identity, set()).add(record.modality)
        images[record.modality] += 1
        cameras.add(record.camera)
    found = {"identities": len(people), "cameras": len(cameras)}
    if single:
        found["images"] = sum(images.values())
    else:
        found |= {f"{modality} images": number for modality, number in images.items()}
        found["identities with both modalities"] = sum(len(seen) == len(Modality) for seen in people.values())
    return tuple(Count(what, None, number) for what, number in found.items())
