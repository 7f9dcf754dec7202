"""Check of a data set on disk: detect its kind, compare it with the published counts, decode every image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from enum import StrEnum
from pathlib import Path

from models.card import Modality
from models.cores import usable_cores
from models.crop_files import of_system_because
from training.data import llcm, regdb, sysu_mm01
from training.data.folder import read_folder, read_pairs
from training.data.images import image_files, images_below, load
from training.data.manifest import read_manifest
from training.data.records import Record
from training.data.report import Count, Report
from training.data.skipped import Skipped

__all__ = ["Kind", "check", "detect"]


class Kind(StrEnum):
    """Kind of a data set on disk."""

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
"""The check of each published data set, and the folders by which it is detected."""

_OWN: dict[Kind, Callable[[Path, Skipped], list[Record]]] = {
    Kind.MANIFEST: lambda manifest, _: read_manifest(manifest),
    Kind.PAIRS: read_pairs,
    Kind.FOLDER: lambda root, skipped: read_folder(root, skipped=skipped),
    Kind.SINGLE_MODALITY: lambda root, skipped: read_folder(root, Modality.VISIBLE, skipped=skipped),
}


def check(path: Path, kind: str | None = None) -> Report:
    """Check the data set at ``path`` as the given or the detected ``kind``.

    Raises:
        FileNotFoundError: ``path`` does not exist.
        ValueError: the kind is unknown.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    if kind is not None and kind not in set(Kind):
        raise ValueError(f"expected a kind of data set from {', '.join(Kind)}, got {kind!r}")
    found = Kind(kind) if kind is not None else detect(path)
    if found in _BENCHMARKS:
        report = _BENCHMARKS[found][0](path)
        images = [Record(file, "", "", Modality.VISIBLE) for file in images_below(path)]
        return replace(report, unreadable=unreadable_images(images))
    skipped = Skipped()
    try:
        records = _OWN[found](path, skipped)
    except (OSError, ValueError) as error:
        return Report(found, path, problem=str(error))
    counts = _counts(records, single=found is Kind.SINGLE_MODALITY)
    return Report(found, path, counts, skipped=tuple(skipped.lines()), unreadable=unreadable_images(records))


def unreadable_images(records: Iterable[Record]) -> tuple[str, ...]:
    """Decode every image and return a line for each that cannot be decoded."""
    with ThreadPoolExecutor(usable_cores()) as pool:
        return tuple(line for line in pool.map(_problem_of, records) if line is not None)


def _problem_of(record: Record) -> str | None:
    try:
        load(record)
    except (OSError, ValueError) as error:
        return str(error)
    return None


def detect(path: Path) -> Kind:
    """Detect the kind of a data set; two folders of a published one suffice, so that missing ones can be reported."""
    if path.is_file():
        return Kind.MANIFEST
    for kind, (_, folders) in _BENCHMARKS.items():
        if sum((path / folder).is_dir() for folder in folders) >= 2:
            return kind
    tops = [path / modality for modality in Modality if (path / modality).is_dir()]
    if not tops:
        return Kind.SINGLE_MODALITY
    has_identities = any(
        path.is_dir() and not of_system_because(path.name, folder=True) for top in tops for path in top.iterdir()
    )
    return Kind.PAIRS if not has_identities and any(image_files(top) for top in tops) else Kind.FOLDER


def _counts(records: Sequence[Record], single: bool) -> tuple[Count, ...]:
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
    if len(types := Counter(record.path.suffix.lower() for record in records)) > 1:
        found |= {f"{suffix} files": number for suffix, number in sorted(types.items())}
    return tuple(Count(name, None, number) for name, number in found.items())
