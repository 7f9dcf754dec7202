"""One crop of a data set, and what is decided over whole lists of them: labels, translations, splits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from models.card import Modality
from training.data.seeding import position

__all__ = ["Record", "at_most", "by_camera", "label_of", "split_identities", "with_translations"]


@dataclass(frozen=True, slots=True)
class Record:
    """One crop. ``identity`` and ``camera`` are written as in the data set.

    Raises:
        ValueError: a translation that is not infrared.
    """

    path: Path
    identity: str
    camera: str
    modality: Modality
    translated: bool = False
    """The infrared picture does not exist: it is to be made from the visible file ``path``."""
    levels: tuple[float, float] | None = None
    """Raw values that become black and white, if the file is deeper than 8 bits and the range of its frame is known."""

    def __post_init__(self) -> None:
        if self.translated and self.modality is not Modality.INFRARED:
            raise ValueError(f"{self.path}: only infrared is translated, not {self.modality}")


def label_of(records: Iterable[Record]) -> dict[str, int]:
    """Training label of each identity, 0 … n-1: its position in ascending order, the same in every process."""
    return {identity: label for label, identity in enumerate(sorted({r.identity for r in records}))}


def by_camera(records: Iterable[Record]) -> dict[str, list[Record]]:
    """The records of each camera, cameras in ascending order: the pools a gallery is drawn from."""
    pools: dict[str, list[Record]] = {}
    for record in records:
        pools.setdefault(record.camera, []).append(record)
    return dict(sorted(pools.items()))


def with_translations(records: Sequence[Record]) -> list[Record]:
    """The records, followed by a translated infrared one for each visible record of an identity without infrared."""
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
    """At most ``count`` records of an identity in a modality, spread evenly over them, in the order given."""
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

    An identity's side follows from ``seed`` and ``group_of(identity)`` alone, so neither the order nor other
    identities change it, and identities of one group (the windows of one frame) stay together. ``held_out`` in
    [0, 1) is the expected share of groups; the actual share varies a little.

    Raises:
        ValueError: ``held_out`` is outside [0, 1).
    """
    if not 0 <= held_out < 1:
        raise ValueError(f"held_out must be in [0, 1), got {held_out}")
    train: list[Record] = []
    kept_out: list[Record] = []
    for record in records:
        (kept_out if position(group_of(record.identity), seed) < held_out else train).append(record)
    return train, kept_out
