"""CSV manifests: one crop per line, with the columns path, identity, modality and camera."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from models.card import Modality
from training.data.folder import NO_CAMERA
from training.data.records import Record

__all__ = ["COLUMNS", "RANGE_COLUMNS", "read_manifest"]

COLUMNS = ("path", "identity", "modality", "camera")
RANGE_COLUMNS = ("range_low", "range_high")
"""Optional columns for images deeper than 8 bits: raw values of the frame that become black and white."""


def read_manifest(manifest: Path) -> list[Record]:
    """Read the records of a manifest in its order; paths are relative to the manifest's folder.

    An empty camera is ``NO_CAMERA``. ``range_low`` and ``range_high`` are optional; further columns are ignored.

    Raises:
        OSError: the manifest cannot be read.
        ValueError: a column is missing, there is no line after the header, or a line is invalid (an empty path or
            identity, an unknown modality, a missing or repeated path); the message has line and value.
    """
    with manifest.open(newline="", encoding="utf-8-sig") as file:
        lines = csv.DictReader(file)
        if missing := [column for column in COLUMNS if column not in (lines.fieldnames or ())]:
            raise ValueError(f"{manifest}: expected the columns {', '.join(COLUMNS)}; missing {', '.join(missing)}")
        seen: dict[Path, int] = {}
        records = [_record(manifest, lines.line_num, line, seen) for line in lines]
    if not records:
        raise ValueError(f"{manifest}: no line after the header")
    return records


def _record(manifest: Path, number: int, line: Mapping[str, str | None], seen: dict[Path, int]) -> Record:
    def invalid(reason: str) -> ValueError:
        return ValueError(f"{manifest}, line {number}: {reason}")

    path, identity, modality, camera = ((line[column] or "").strip() for column in COLUMNS)
    if not path or not identity:
        raise invalid(f"{'path' if not path else 'identity'} is empty")
    if modality not in set(Modality):
        raise invalid(f"modality {modality!r} is not one of {', '.join(Modality)}")
    file = manifest.parent / path
    if not file.is_file():
        raise invalid(f"{path!r} is not a file")
    if file in seen:
        raise invalid(f"{path!r} is already listed on line {seen[file]}")
    seen[file] = number
    try:
        levels = _levels(line)
    except ValueError as error:
        raise invalid(str(error)) from None
    return Record(file, identity, camera or NO_CAMERA, Modality(modality), levels=levels)


def _levels(line: Mapping[str, str | None]) -> tuple[float, float] | None:
    low, high = ((line.get(column) or "").strip() for column in RANGE_COLUMNS)
    if not low and not high:
        return None
    try:
        levels = float(low), float(high)
    except ValueError:
        raise ValueError(f"expected two numbers in range_low and range_high, found {low!r} and {high!r}") from None
    if not levels[0] < levels[1]:
        raise ValueError(f"range_low {low} is not below range_high {high}")
    return levels
