"""Item facts as NumPy columns, so that a filter becomes a mask in a few vector operations."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.card import Modality
from server.gallery.filters import AttributeKey, attribute_key
from server.gallery.index import Mask, VectorIndex
from server.gallery.moments import from_micros, to_micros
from server.gallery.types import Filter, Item, Scalar

__all__ = ["DTYPES", "AttributeSets", "View", "Vocabulary", "encode"]

_NO_TIME = np.iinfo(np.int64).min

DTYPES: Mapping[str, type[np.generic]] = {
    "alive": np.bool_,
    "modality": np.uint8,
    "identity": np.int32,
    "camera": np.int32,
    "captured_at": np.int64,
    "attributes": np.int32,
}
"""The columns; one row is at most 22 bytes."""

_canonical = json.JSONEncoder(sort_keys=True).encode
_MODALITIES = tuple(sorted(Modality, key=lambda modality: modality.index))


class Vocabulary:
    """Strings as small numbers; None is 0. One thread adds, any may read: a number once given keeps its meaning."""

    def __init__(self) -> None:
        self._values: list[str | None] = [None]
        self._codes: dict[str | None, int] = {None: 0}

    def code(self, value: str | None) -> int:
        """The number of ``value``, given now if it has none. For the adding thread."""
        if value not in self._codes:
            self._values.append(value)
            self._codes[value] = len(self._values) - 1
        return self._codes[value]

    def value(self, code: int) -> str | None:
        """The string of a number."""
        return self._values[code]

    def table(self, chosen: Iterable[str]) -> Mask:
        """For each number whether its string is chosen."""
        codes = [self._codes[value] for value in chosen if value in self._codes]
        table = np.zeros(len(self._values), np.bool_)
        table[codes] = True
        return table


class AttributeSets:
    """Whole attribute objects as small numbers: the cameras of one site share theirs. Threads as in ``Vocabulary``."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._codes: dict[str, int] = {}
        self._holders: dict[AttributeKey, list[int]] = {}

    def code(self, attributes: Mapping[str, Scalar]) -> int:
        """The number of an attribute object, given now if it has none. For the adding thread."""
        text = _canonical(dict(attributes))
        if text not in self._codes:
            self._texts.append(text)
            code = len(self._texts) - 1
            for name, value in attributes.items():
                self._holders.setdefault(attribute_key(name, value), []).append(code)
            self._codes[text] = code
        return self._codes[text]

    def value(self, code: int) -> dict[str, Scalar]:
        """The attribute object of a number."""
        attributes: dict[str, Scalar] = json.loads(self._texts[code])
        return attributes

    def table(self, wanted: Mapping[str, Scalar]) -> Mask:
        """For each number whether its object has every wanted attribute."""
        holders = [list(self._holders.get(attribute_key(*pair), ())) for pair in wanted.items()]
        table = np.ones(len(self._texts), np.bool_)
        for codes in holders:
            has = np.zeros(len(table), np.bool_)
            has[codes] = True
            table &= has
        return table


@dataclass(frozen=True, slots=True)
class View:
    """A gallery at one moment. It never changes, whatever is written meanwhile; nobody locks anything to read it.

    Row r of every column is row r of ``index``. ``index``, ``ids`` and the vocabularies are shared with later views
    and may be longer than this one, which ends where its columns end.
    """

    sequence: int
    index: VectorIndex
    ids: Sequence[str]
    alive: Mask
    modality: NDArray[np.uint8]
    identity: NDArray[np.int32]
    camera: NDArray[np.int32]
    captured_at: NDArray[np.int64]
    attributes: NDArray[np.int32]
    identities: Vocabulary
    cameras: Vocabulary
    attribute_sets: AttributeSets

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
        if where.captured_from is not None:
            mask &= self.captured_at >= to_micros(where.captured_from)
        if where.captured_to is not None:
            mask &= (self.captured_at < to_micros(where.captured_to)) & (self.captured_at != _NO_TIME)
        if where.attributes:
            mask &= self.attribute_sets.table(where.attributes)[self.attributes]
        return mask

    def item(self, row: int) -> Item:
        """The facts of one row."""
        captured_at = int(self.captured_at[row])
        return Item(
            id=self.ids[row],
            modality=_MODALITIES[self.modality[row]],
            identity=self.identities.value(int(self.identity[row])),
            camera=self.cameras.value(int(self.camera[row])),
            captured_at=None if captured_at == _NO_TIME else from_micros(captured_at),
            attributes=self.attribute_sets.value(int(self.attributes[row])),
        )


def encode(
    items: Sequence[Item], identities: Vocabulary, cameras: Vocabulary, attribute_sets: AttributeSets
) -> dict[str, NDArray[Any]]:
    """The columns of living items, each ``[len(items)]``. Adds to the vocabularies."""
    columns: dict[str, list[Any]] = {
        "alive": [True] * len(items),
        "modality": [item.modality.index for item in items],
        "identity": [identities.code(item.identity) for item in items],
        "camera": [cameras.code(item.camera) for item in items],
        "captured_at": [_NO_TIME if item.captured_at is None else to_micros(item.captured_at) for item in items],
        "attributes": [attribute_sets.code(item.attributes) for item in items],
    }
    return {name: np.array(columns[name], dtype) for name, dtype in DTYPES.items()}
