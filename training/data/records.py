"""Record of a crop in a data set, and operations on lists of records: labels, translations, splits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from models.card import Modality
from training.data.seeding import position

__all__ = ["Record", "at_most", "by_camera", "label_of", "split_identities", "with_translations"]


@dataclass(frozen=True, slots=True)
class Record:
    """One crop. ``identity`` and ``camera`` are spelled as in the data set.

    Raises:
        ValueError: a translated record is not infrared.
    """

    path: Path
    identity: str
    camera: str
    modality: Modality
    translated: bool = False
    """Whether the infrared image is made by translating the visible file ``path``."""
    levels: tuple[float, float] | None = None
    """Raw values that become black and white, for a file deeper than 8 bits with a known range of its frame."""

    def __post_init__(self) -> None:
        if self.translated and self.modality is not Modality.INFRARED:
            raise ValueError(f"{self.path}: only infrared images are translated, not {self.modality} ones")


def label_of(records: Iterable[Record]) -> dict[str, int]:
    """Return the training label of each identity, 0 … n-1: its position in ascending order."""
    return {identity: label for label, identity in enumerate(sorted({r.identity for r in records}))}


def by_camera(records: Iterable[Record]) -> dict[str, list[Record]]:
    """Group the records by camera, in ascending order of the cameras."""
    pools: dict[str, list[Record]] = {}
    for record in records:
        pools.setdefault(record.camera, []).append(record)
    return dict(sorted(pools.items()))


def with_translations(records: Sequence[Record]) -> list[Record]:
    """Append a translated infrared record for each visible record of an identity without infrared images."""
    seen_in_infrared = {r.identity for r in records if r.modality is Modality.INFRARED}
    return [
        *records,
        *(
            replace(r, modality=Modality.INFRARED, translated=True)
            for r in records
            if r.modality is Modality.VISIBLE and r.identity not in seen_in_infrared
        ),
    ]


def at_most(records: Sequence[Record], count: int) -> list[Record]:
    """Keep at most ``count`` evenly spread records of each identity in each modality, in the given order."""
    groups: dict[tuple[str, Modality], list[int]] = {}
    for row, record in enumerate(records):
        groups.setdefault((record.identity, record.modality), []).append(row)
    chosen = {
        rows[i * len(rows) // min(count, len(rows))] for rows in groups.values() for i in range(min(count, len(rows)))
    }
    return [record for row, record in enumerate(records) if row in chosen]


def split_identities(
    records: Iterable[Record], held_out: float, seed: int, group_of: Callable[[str], str] = str
) -> tuple[list[Record], list[Record]]:
    """Split by identity into (train, held out); both keep the order of the records.

    The side of an identity depends only on ``seed`` and ``group_of(identity)``, not on the order or on other
    identities, and identities of one group (the windows of one frame) stay together. ``held_out`` in [0, 1) is the
    expected share of groups; the actual share varies.

    Raises:
        ValueError: ``held_out`` is outside [0, 1).
    """
    if not 0 <= held_out < 1:
        raise ValueError(f"held_out must be in [0, 1), got {held_out}")
    train: list[Record] = []
    held_out_records: list[Record] = []
    for record in records:
        (held_out_records if position(group_of(record.identity), seed) < held_out else train).append(record)
    return train, held_out_records
