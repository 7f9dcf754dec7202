"""Item facts as NumPy columns, so that a filter becomes a mask in a few vector operations."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.card import Modality
from server.gallery.index import Mask, Rows, VectorIndex
from server.gallery.lists import InvertedLists
from server.gallery.moments import from_micros, to_micros
from server.gallery.strings import Growing, Numbers, Strings
from server.gallery.types import CropWarning, Filter, Item, Scalar

__all__ = ["DTYPES", "Arrays", "AttributeSets", "View", "Vocabulary", "empty", "encode", "pack", "unpack"]

Arrays = dict[str, NDArray[Any]]
"""Arrays by name: all of a gallery in memory but its vectors, or a part of it."""
Codes = NDArray[np.int32]

_NO_TIME = np.iinfo(np.int64).min

DTYPES: Mapping[str, type[np.generic]] = {
    "alive": np.bool_,
    "row": np.int64,
    "modality": np.uint8,
    "identity": np.int32,
    "camera": np.int32,
    "captured_at": np.int64,
    "attributes": np.int32,
    "warnings": np.uint8,
}
"""The columns: 31 bytes a row. ``row`` is the item's row in the store."""

_REMEMBERED = 4096

_canonical = json.JSONEncoder(sort_keys=True).encode
_MODALITIES = tuple(sorted(Modality, key=lambda modality: modality.index))


class Vocabulary:
    """Strings as small numbers; None is 0. One thread adds, any may read: a number once given keeps its meaning."""

    def __init__(self, strings: Strings) -> None:
        self._strings = strings
        self._lately: dict[str | None, int] = {None: 0}  # most values are those of a moment ago

    def __len__(self) -> int:
        return len(self._strings) + 1

    def codes(self, values: Sequence[str | None]) -> Codes:
        """The number of each value, given now if it has none. For the adding thread."""
        if len(self._lately) > _REMEMBERED:
            self._lately = {None: 0}
        unknown = [value for value in dict.fromkeys(values) if value is not None and value not in self._lately]
        if unknown:
            for place, number in zip(*(found.tolist() for found in self._strings.find(unknown)), strict=True):
                self._lately[unknown[place]] = number + 1
            new = [value for value in unknown if value not in self._lately]
            self._lately.update((value, code) for code, value in enumerate(new, len(self)))
            self._strings.append(new)
        return np.array([self._lately[value] for value in values], np.int32)

    def value(self, code: int) -> str | None:
        """The string of a number."""
        return None if code == 0 else self._strings[code - 1]

    def table(self, chosen: Collection[str]) -> Mask:
        """For each number whether its string is chosen."""
        _, numbers = self._strings.find(list(chosen))
        table = np.zeros(len(self), np.bool_)
        table[numbers + 1] = True
        return table

    def kept(self, codes: Codes) -> tuple[tuple[NDArray[np.uint8], Numbers], Codes]:
        """Text and ends of what ``codes`` ``[n]`` stand for and of nothing else, and their numbers in that."""
        used = np.union1d(codes, [0])
        return self._strings.take(used[1:] - 1), np.searchsorted(used, codes).astype(np.int32)


class AttributeSets:
    """Whole attribute objects as small numbers, the empty one 0: the cameras of one site share theirs.

    Threads as in ``Vocabulary``. Objects and single attributes are held as canonical JSON; two more arrays say which
    object has which attribute.
    """

    def __init__(self, arrays: Arrays) -> None:
        self._sets, self._pairs = Vocabulary(_strings(arrays, "sets")), Vocabulary(_strings(arrays, "pairs"))
        self._owners, self._owned = Growing(arrays["owners"]), Growing(arrays["owned"])

    def codes(self, objects: Sequence[Mapping[str, Scalar]]) -> Codes:
        """The number of each attribute object, given now if it has none. For the adding thread."""
        first = len(self._sets)
        codes = self._sets.codes([_canonical(dict(one)) if one else None for one in objects])
        new = {code: one for code, one in zip(codes.tolist(), objects, strict=True) if code >= first}
        if new:
            self._owned.append(self._pairs.codes([_pair(*pair) for one in new.values() for pair in one.items()]))
            self._owners.append(np.repeat(np.array([*new], np.int32), [len(one) for one in new.values()]))
        return codes

    def value(self, code: int) -> dict[str, Scalar]:
        """The attribute object of a number."""
        text = self._sets.value(code)
        attributes: dict[str, Scalar] = {} if text is None else json.loads(text)
        return attributes

    def table(self, wanted: Mapping[str, Scalar]) -> Mask:
        """For each number whether its object has every wanted attribute."""
        table: Mask = np.logical_and.reduce(self._having(wanted))
        return table

    def table_of_any(self, unwanted: Mapping[str, Scalar]) -> Mask:
        """For each number whether its object has one of the unwanted attributes."""
        table: Mask = np.logical_or.reduce(self._having(unwanted))
        return table

    def _having(self, chosen: Mapping[str, Scalar]) -> NDArray[np.bool_]:
        """Which objects have each attribute, ``[len(chosen), numbers]``."""
        owners = self._owners.values  # before what is appended before it
        owned = self._owned.values[: len(owners)]
        having = np.zeros((len(chosen), len(self._sets)), np.bool_)
        for row, pair in zip(having, chosen.items(), strict=True):
            row[owners[self._pairs.table([_pair(*pair)])[owned]]] = True
        return having

    def kept(self, codes: Codes) -> tuple[Arrays, Codes]:
        """The arrays of what ``codes`` ``[n]`` stand for and of nothing else, and their numbers in that."""
        sets, renumbered = self._sets.kept(codes)
        used = np.union1d(codes, [0])
        owners = self._owners.values
        keep = np.isin(owners, used)
        pairs, owned = self._pairs.kept(self._owned.values[: len(owners)][keep])
        owners = np.searchsorted(used, owners[keep]).astype(np.int32)
        return {**_named("sets", *sets), **_named("pairs", *pairs), "owners": owners, "owned": owned}, renumbered


@dataclass(frozen=True, slots=True)
class View:
    """A gallery at one moment. It never changes, whatever is written meanwhile; nobody locks anything to read it.

    Row r of every column is row r of ``index``, and of ``lists``, where there are any. ``index``, ``ids`` and the
    vocabularies are shared with later views and may be longer than this one, which ends where its columns end.
    """

    sequence: int
    index: VectorIndex
    ids: Strings
    alive: Mask
    row: Rows
    modality: NDArray[np.uint8]
    identity: Codes
    camera: Codes
    captured_at: NDArray[np.int64]
    attributes: Codes
    warnings: NDArray[np.uint8]
    identities: Vocabulary
    cameras: Vocabulary
    attribute_sets: AttributeSets
    lists: InvertedLists | None = None

    def row_of(self, item: str) -> int | None:
        """The row here of an item, None where there is no such item."""
        _, rows = self.ids.find([item])
        rows = rows[rows < len(self.alive)]  # it may have been added or replaced since
        return next(iter(rows[self.alive[rows]].tolist()), None)

    def allowed(self, where: Filter) -> Mask:
        """Which rows are there and pass the filter: bool ``[rows]``, the caller's to change."""
        mask = self.alive.copy()
        if where.modality is not None:
            mask &= self.modality == where.modality.index
        if where.cameras:
            mask &= self.cameras.table(where.cameras)[self.camera]
        if where.exclude_cameras:
            mask &= ~self.cameras.table(where.exclude_cameras)[self.camera]
        if where.identities:
            mask &= self.identities.table(where.identities)[self.identity]
        if where.exclude_identities:
            mask &= ~self.identities.table(where.exclude_identities)[self.identity]
        if where.captured_from is not None:
            mask &= self.captured_at >= to_micros(where.captured_from)
        if where.captured_to is not None:
            mask &= (self.captured_at < to_micros(where.captured_to)) & (self.captured_at != _NO_TIME)
        if where.attributes:
            mask &= self.attribute_sets.table(where.attributes)[self.attributes]
        if where.exclude_attributes:
            mask &= ~self.attribute_sets.table_of_any(where.exclude_attributes)[self.attributes]
        if where.warnings:
            mask &= self.warnings & CropWarning.to_bits(where.warnings) != 0
        if where.exclude_warnings:
            mask &= self.warnings & CropWarning.to_bits(where.exclude_warnings) == 0
        return mask

    def item(self, row: int) -> Item:
        """The facts of one row; its ``content`` is in the store alone."""
        captured_at = int(self.captured_at[row])
        return Item(
            id=self.ids[row],
            modality=_MODALITIES[self.modality[row]],
            identity=self.identities.value(int(self.identity[row])),
            camera=self.cameras.value(int(self.camera[row])),
            captured_at=None if captured_at == _NO_TIME else from_micros(captured_at),
            attributes=self.attribute_sets.value(int(self.attributes[row])),
            warnings=CropWarning.from_bits(int(self.warnings[row])),
        )


def encode(
    items: Sequence[Item], rows: Rows, identities: Vocabulary, cameras: Vocabulary, attribute_sets: AttributeSets
) -> Arrays:
    """The columns of living items, each ``[len(items)]``. Adds to the vocabularies."""
    columns: dict[str, Any] = {
        "alive": [True] * len(items),
        "row": rows,
        "modality": [item.modality.index for item in items],
        "identity": identities.codes([item.identity for item in items]),
        "camera": cameras.codes([item.camera for item in items]),
        "captured_at": [_NO_TIME if item.captured_at is None else to_micros(item.captured_at) for item in items],
        "attributes": attribute_sets.codes([item.attributes for item in items]),
        "warnings": [CropWarning.to_bits(item.warnings) for item in items],
    }
    return {name: np.asarray(columns[name], dtype) for name, dtype in DTYPES.items()}


def empty() -> Arrays:
    """The arrays of a gallery without items."""
    strings = (np.empty(0, np.uint8), np.empty(0, np.int64))
    arrays = {name: np.empty(0, dtype) for name, dtype in DTYPES.items()}
    for name in ("ids", "identities", "cameras", "sets", "pairs"):
        arrays |= _named(name, *strings)
    return arrays | {"owners": np.empty(0, np.int32), "owned": np.empty(0, np.int32)}


def pack(view: View, rows: Rows) -> Arrays:
    """All but the vectors of ``rows`` ``[n]`` of a view. A dead row is empty: nothing is left of its item."""
    alive = view.alive[rows]
    arrays = {name: np.where(alive, getattr(view, name)[rows], dtype(0)) for name, dtype in DTYPES.items()}
    arrays |= _named("ids", *view.ids.take(np.where(alive, rows, -1)))
    identities, arrays["identity"] = view.identities.kept(arrays["identity"])
    cameras, arrays["camera"] = view.cameras.kept(arrays["camera"])
    sets, arrays["attributes"] = view.attribute_sets.kept(arrays["attributes"])
    return arrays | _named("identities", *identities) | _named("cameras", *cameras) | sets


def unpack(arrays: Arrays) -> tuple[Strings, Vocabulary, Vocabulary, AttributeSets]:
    """Ids, identities, cameras and attribute sets of what ``pack`` gave."""
    ids, identities, cameras = (_strings(arrays, name) for name in ("ids", "identities", "cameras"))
    return ids, Vocabulary(identities), Vocabulary(cameras), AttributeSets(arrays)


def _named(name: str, text: NDArray[np.uint8], ends: Numbers) -> Arrays:
    return {f"{name}.text": text, f"{name}.ends": ends}


def _strings(arrays: Arrays, name: str) -> Strings:
    return Strings(arrays[f"{name}.text"], arrays[f"{name}.ends"])


def _pair(name: str, value: Scalar) -> str:
    """The same for attributes that are equal as JSON: 1 and 1.0 are, 1 and true are not."""
    return _canonical([name, int(value) if isinstance(value, float) and value.is_integer() else value])
