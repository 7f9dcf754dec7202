"""Item metadata as NumPy columns, so that a filter becomes a mask in a few vector operations."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.card import Modality
from server.domain.timestamps import from_microseconds, to_microseconds
from server.domain.types import CropWarning, Filter, Item, Scalar
from server.gallery.string_table import GrowingArray, Offsets, StringTable
from server.index.ivf import InvertedLists
from server.index.protocol import Mask, Rows, VectorIndex

__all__ = [
    "DTYPES",
    "NO_TIME",
    "Arrays",
    "AttributeSets",
    "GalleryView",
    "Vocabulary",
    "empty",
    "encode",
    "pack",
    "unpack",
]

Arrays = dict[str, NDArray[Any]]
"""Arrays by name: everything of a gallery in memory except vectors, or a part of it."""
Codes = NDArray[np.int32]

NO_TIME = np.iinfo(np.int64).min
"""Capture time of an item without one, in the column ``captured_at``."""

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
"""The columns: 31 bytes per row. ``row`` is the item's row in the store."""

_MAX_RECENT = 4096

_canonical = json.JSONEncoder(sort_keys=True).encode
_MODALITIES = tuple(sorted(Modality, key=lambda modality: modality.index))


class Vocabulary:
    """Strings as small codes; None is 0. One thread adds, any thread may read: a code keeps its meaning."""

    def __init__(self, strings: StringTable) -> None:
        self._strings = strings
        self._recent: dict[str | None, int] = {None: 0}  # most values repeat recent ones

    def __len__(self) -> int:
        return len(self._strings) + 1

    def codes(self, values: Sequence[str | None]) -> Codes:
        """Return the code of each value, adding new values. For the adding thread."""
        if len(self._recent) > _MAX_RECENT:
            self._recent = {None: 0}
        unknown = [value for value in dict.fromkeys(values) if value is not None and value not in self._recent]
        if unknown:
            for place, number in zip(*(found.tolist() for found in self._strings.find(unknown)), strict=True):
                self._recent[unknown[place]] = number + 1
            new = [value for value in unknown if value not in self._recent]
            self._recent.update((value, code) for code, value in enumerate(new, len(self)))
            self._strings.append(new)
        return np.array([self._recent[value] for value in values], np.int32)

    def value(self, code: int) -> str | None:
        """Return the string of a code."""
        return None if code == 0 else self._strings[code - 1]

    def table(self, chosen: Collection[str]) -> Mask:
        """Return for each code whether its string is chosen."""
        _, numbers = self._strings.find(list(chosen))
        table = np.zeros(len(self), np.bool_)
        table[numbers + 1] = True
        return table

    def kept(self, codes: Codes) -> tuple[tuple[NDArray[np.uint8], Offsets], Codes]:
        """Return text and ends of only the strings of ``codes`` ``[n]``, and their codes among those."""
        used = np.union1d(codes, [0])
        return self._strings.take(used[1:] - 1), np.searchsorted(used, codes).astype(np.int32)


class AttributeSets:
    """Whole attribute objects as small codes, the empty object 0: items of one site often share an object.

    Threads as in ``Vocabulary``. Objects and single attributes are stored as canonical JSON; two more arrays tell which
    object has which attribute.
    """

    def __init__(self, arrays: Arrays) -> None:
        self._sets, self._pairs = Vocabulary(_strings(arrays, "sets")), Vocabulary(_strings(arrays, "pairs"))
        self._owners, self._owned = GrowingArray(arrays["owners"]), GrowingArray(arrays["owned"])

    def codes(self, objects: Sequence[Mapping[str, Scalar]]) -> Codes:
        """Return the code of each attribute object, adding new objects. For the adding thread."""
        first = len(self._sets)
        codes = self._sets.codes([_canonical(dict(one)) if one else None for one in objects])
        new = {code: one for code, one in zip(codes.tolist(), objects, strict=True) if code >= first}
        if new:
            self._owned.append(self._pairs.codes([_pair(*pair) for one in new.values() for pair in one.items()]))
            self._owners.append(np.repeat(np.array([*new], np.int32), [len(one) for one in new.values()]))
        return codes

    def value(self, code: int) -> dict[str, Scalar]:
        """Return the attribute object of a code."""
        text = self._sets.value(code)
        attributes: dict[str, Scalar] = {} if text is None else json.loads(text)
        return attributes

    def table(self, required: Mapping[str, Scalar]) -> Mask:
        """Return for each code whether its object has all these attributes."""
        table: Mask = np.logical_and.reduce(self._having(required))
        return table

    def table_of_any(self, unwanted: Mapping[str, Scalar]) -> Mask:
        """Return for each code whether its object has one of the unwanted attributes."""
        table: Mask = np.logical_or.reduce(self._having(unwanted))
        return table

    def _having(self, chosen: Mapping[str, Scalar]) -> NDArray[np.bool_]:
        """Return which objects have each attribute, ``[len(chosen), codes]``."""
        owners = self._owners.values  # read first, because it is appended last
        owned = self._owned.values[: len(owners)]
        having = np.zeros((len(chosen), len(self._sets)), np.bool_)
        for row, pair in zip(having, chosen.items(), strict=True):
            row[owners[self._pairs.table([_pair(*pair)])[owned]]] = True
        return having

    def kept(self, codes: Codes) -> tuple[Arrays, Codes]:
        """Return the arrays of only the objects of ``codes`` ``[n]``, and their codes among those."""
        sets, renumbered = self._sets.kept(codes)
        used = np.union1d(codes, [0])
        owners = self._owners.values
        keep = np.isin(owners, used)
        pairs, owned = self._pairs.kept(self._owned.values[: len(owners)][keep])
        owners = np.searchsorted(used, owners[keep]).astype(np.int32)
        return {**_named("sets", *sets), **_named("pairs", *pairs), "owners": owners, "owned": owned}, renumbered


@dataclass(frozen=True, slots=True)
class GalleryView:
    """A gallery at one moment. It never changes, whatever is written meanwhile, and is read without locks.

    Row r of every column is row r of ``index``, and of ``lists``, if there are any. ``index``, ``ids`` and the
    vocabularies are shared with later views and may be longer than this view, which ends with its columns.
    """

    sequence: int
    index: VectorIndex
    ids: StringTable
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
        """Return the row of an item in this view, None if it does not exist."""
        _, rows = self.ids.find([item])
        rows = rows[rows < len(self.alive)]  # it may have been added or replaced since
        return next(iter(rows[self.alive[rows]].tolist()), None)

    def allowed(self, where: Filter) -> Mask:
        """Return which rows are alive and pass the filter: bool ``[rows]``, a new array."""
        mask = self.alive.copy()
        if where.modality is not None:
            mask &= self.modality == where.modality.index
        if where.ids:
            mask &= self._having_id(where.ids)
        if where.exclude_ids:
            mask &= ~self._having_id(where.exclude_ids)
        if where.cameras:
            mask &= self.cameras.table(where.cameras)[self.camera]
        if where.exclude_cameras:
            mask &= ~self.cameras.table(where.exclude_cameras)[self.camera]
        if where.identities:
            mask &= self.identities.table(where.identities)[self.identity]
        if where.exclude_identities:
            mask &= ~self.identities.table(where.exclude_identities)[self.identity]
        if where.captured_from is not None:
            mask &= self.captured_at >= to_microseconds(where.captured_from)
        if where.captured_to is not None:
            mask &= (self.captured_at < to_microseconds(where.captured_to)) & (self.captured_at != NO_TIME)
        if where.attributes:
            mask &= self.attribute_sets.table(where.attributes)[self.attributes]
        if where.exclude_attributes:
            mask &= ~self.attribute_sets.table_of_any(where.exclude_attributes)[self.attributes]
        if where.warnings:
            mask &= self.warnings & CropWarning.to_bits(where.warnings) != 0
        if where.exclude_warnings:
            mask &= self.warnings & CropWarning.to_bits(where.exclude_warnings) == 0
        return mask

    def _having_id(self, ids: Collection[str]) -> Mask:
        mask = np.zeros(len(self.alive), np.bool_)
        _, rows = self.ids.find(list(ids))
        mask[rows[rows < len(mask)]] = True  # others were added since
        return mask

    def item(self, row: int) -> Item:
        """Return the item of a row, without its ``content``, which only the store has."""
        captured_at = int(self.captured_at[row])
        return Item(
            id=self.ids[row],
            modality=_MODALITIES[self.modality[row]],
            identity=self.identities.value(int(self.identity[row])),
            camera=self.cameras.value(int(self.camera[row])),
            captured_at=None if captured_at == NO_TIME else from_microseconds(captured_at),
            attributes=self.attribute_sets.value(int(self.attributes[row])),
            warnings=CropWarning.from_bits(int(self.warnings[row])),
        )


def encode(
    items: Sequence[Item], rows: Rows, identities: Vocabulary, cameras: Vocabulary, attribute_sets: AttributeSets
) -> Arrays:
    """Return the columns of new items, each ``[len(items)]``. Adds to the vocabularies."""
    columns: dict[str, Any] = {
        "alive": [True] * len(items),
        "row": rows,
        "modality": [item.modality.index for item in items],
        "identity": identities.codes([item.identity for item in items]),
        "camera": cameras.codes([item.camera for item in items]),
        "captured_at": [NO_TIME if item.captured_at is None else to_microseconds(item.captured_at) for item in items],
        "attributes": attribute_sets.codes([item.attributes for item in items]),
        "warnings": [CropWarning.to_bits(item.warnings) for item in items],
    }
    return {name: np.asarray(columns[name], dtype) for name, dtype in DTYPES.items()}


def empty() -> Arrays:
    """Return the arrays of a gallery without items."""
    strings = (np.empty(0, np.uint8), np.empty(0, np.int64))
    arrays = {name: np.empty(0, dtype) for name, dtype in DTYPES.items()}
    for name in ("ids", "identities", "cameras", "sets", "pairs"):
        arrays |= _named(name, *strings)
    return arrays | {"owners": np.empty(0, np.int32), "owned": np.empty(0, np.int32)}


def pack(view: GalleryView, rows: Rows) -> Arrays:
    """Return everything except vectors of ``rows`` ``[n]`` of a view. Nothing remains of the items of dead rows."""
    alive = view.alive[rows]
    arrays = {name: np.where(alive, getattr(view, name)[rows], dtype(0)) for name, dtype in DTYPES.items()}
    arrays |= _named("ids", *view.ids.take(np.where(alive, rows, -1)))
    identities, arrays["identity"] = view.identities.kept(arrays["identity"])
    cameras, arrays["camera"] = view.cameras.kept(arrays["camera"])
    sets, arrays["attributes"] = view.attribute_sets.kept(arrays["attributes"])
    return arrays | _named("identities", *identities) | _named("cameras", *cameras) | sets


def unpack(arrays: Arrays) -> tuple[StringTable, Vocabulary, Vocabulary, AttributeSets]:
    """Return ids, identities, cameras and attribute sets of the arrays of ``pack``."""
    ids, identities, cameras = (_strings(arrays, name) for name in ("ids", "identities", "cameras"))
    return ids, Vocabulary(identities), Vocabulary(cameras), AttributeSets(arrays)


def _named(name: str, text: NDArray[np.uint8], ends: Offsets) -> Arrays:
    return {f"{name}.text": text, f"{name}.ends": ends}


def _strings(arrays: Arrays, name: str) -> StringTable:
    return StringTable(arrays[f"{name}.text"], arrays[f"{name}.ends"])


def _pair(name: str, value: Scalar) -> str:
    """Return a text that is equal for attributes that are equal as JSON: 1 and 1.0 are, 1 and true are not."""
    return _canonical([name, int(value) if isinstance(value, float) and value.is_integer() else value])
