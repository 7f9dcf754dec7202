"""A table of many strings in little memory: one array of bytes, with a 32-bit hash per string for lookup."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

__all__ = ["GrowingArray", "Offsets", "StringTable"]

Offsets = NDArray[np.int64]

_MIN_CAPACITY = 1024
_CHUNK = 65536


class GrowingArray:
    """An array that grows at its end. One thread appends, any thread may read: values read never change."""

    def __init__(self, values: NDArray[Any]) -> None:
        self._values, self._size = values, len(values)

    @property
    def values(self) -> NDArray[Any]:
        """The current values."""
        size = self._size  # read first: the array may be replaced by a longer one meanwhile
        return self._values[:size]

    def append(self, values: NDArray[Any]) -> None:
        """Append values."""
        end = self._size + len(values)
        if end > len(self._values):
            grown = np.empty(max(end, 2 * self._size, _MIN_CAPACITY), self._values.dtype)
            grown[: self._size] = self._values[: self._size]
            self._values = grown
        self._values[self._size : end] = values
        self._size = end


@dataclass(frozen=True, slots=True)
class _Lookup:
    """Numbers by hash: most of them sorted, recent ones in a dictionary."""

    hashes: NDArray[np.uint32]
    numbers: NDArray[np.int32]
    recent: dict[int, tuple[int, ...]] = field(default_factory=dict)


class StringTable(Sequence[str]):
    """Strings numbered from 0 in the order of insertion; a string inserted again has several numbers.

    Threads: one appends, any may read concurrently. A number keeps its meaning.

    ``text`` holds the UTF-8 bytes of all strings, ``ends`` ``[n]`` the position behind each.
    """

    def __init__(self, text: NDArray[np.uint8], ends: Offsets) -> None:
        self._text, self._ends = GrowingArray(text), GrowingArray(ends)
        hashes = [_hashes(self[start : start + _CHUNK]) for start in range(0, len(self), _CHUNK)]
        found = np.concatenate([np.empty(0, np.uint32), *hashes])
        order = np.argsort(found, kind="stable").astype(np.int32)
        self._lookup = _Lookup(found[order], order)
        self._recent_count = 0

    def __len__(self) -> int:
        return len(self._ends.values)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        ends, text = self._ends.values, self._text.values
        if isinstance(index, int):
            number = range(len(ends))[index]
            return text[ends[number - 1] if number else 0 : ends[number]].tobytes().decode()
        first, last, step = index.indices(len(ends))
        if step != 1:
            raise ValueError(f"expected a slice of step 1, found {step}")
        bounds = [int(ends[first - 1]) if first else 0, *ends[first : max(first, last)].tolist()]
        raw = text[bounds[0] : bounds[-1]].tobytes()
        return [raw[start - bounds[0] : end - bounds[0]].decode() for start, end in pairwise(bounds)]

    def append(self, strings: Sequence[str]) -> None:
        """Insert strings, also those that exist already."""
        if not strings:
            return
        first = len(self)
        encoded = [string.encode() for string in strings]
        start = self._ends.values[-1] if first else 0
        self._text.append(np.frombuffer(b"".join(encoded), np.uint8))
        self._ends.append(start + np.cumsum([len(one) for one in encoded]))
        hashes = _hashes(strings)
        if self._recent_count + len(strings) > max(_MIN_CAPACITY, first // 32):
            self._merge(hashes, np.arange(first, first + len(strings), dtype=np.int32))
            return
        recent = self._lookup.recent
        for number, key in enumerate(hashes.tolist(), first):
            recent[key] = (*recent.get(key, ()), number)
        self._recent_count += len(strings)

    def find(self, strings: Sequence[str]) -> tuple[Offsets, Offsets]:
        """Find all occurrences of ``strings``: positions among them and numbers here, both ``[n]``."""
        lookup, hashes = self._lookup, _hashes(strings)
        left = np.searchsorted(lookup.hashes, hashes, "left")
        counts = np.searchsorted(lookup.hashes, hashes, "right") - left
        positions = np.repeat(np.arange(len(strings)), counts)
        within = np.arange(len(positions)) - np.repeat(np.cumsum(counts) - counts, counts)
        numbers = lookup.numbers[left[positions] + within]
        pairs = list(zip(positions.tolist(), numbers.tolist(), strict=True))
        if lookup.recent:
            keys = enumerate(hashes.tolist())
            pairs += [(position, number) for position, key in keys for number in lookup.recent.get(key, ())]
        same = [(position, number) for position, number in pairs if self[number] == strings[position]]
        found = np.array(same, np.int64).reshape(-1, 2)
        return found[:, 0], found[:, 1]

    def take(self, numbers: Offsets) -> tuple[NDArray[np.uint8], Offsets]:
        """Return ``text`` and ``ends`` of the strings of ``numbers`` ``[n]``, in that order; -1 is an empty string."""
        ends, text = self._ends.values, self._text.values
        starts = np.concatenate([[0], ends])  # one more at the end, for the empty string
        lengths = np.append(np.diff(starts), 0)[numbers]
        taken, new_ends = np.empty(lengths.sum(), np.uint8), np.cumsum(lengths)
        shifts = starts[numbers] - (new_ends - lengths)
        for first in range(0, len(numbers), _CHUNK):  # indices of all bytes at once would take 8 times the memory
            part = slice(first, first + _CHUNK)
            places = np.arange(new_ends[first] - lengths[first], new_ends[part][-1])
            taken[places] = text[places + np.repeat(shifts[part], lengths[part])]
        return taken, new_ends

    def _merge(self, hashes: NDArray[np.uint32], numbers: NDArray[np.int32]) -> None:
        old = self._lookup
        recent = [(key, number) for key, found in old.recent.items() for number in found]
        lately = np.array(recent, np.int64).reshape(-1, 2)
        hashes = np.concatenate([lately[:, 0].astype(np.uint32), hashes])
        numbers = np.concatenate([lately[:, 1].astype(np.int32), numbers])
        order = np.argsort(hashes, kind="stable")
        places = np.searchsorted(old.hashes, hashes[order], "right")
        # One assignment: a concurrent reader has the old lookup or the new one.
        self._lookup = _Lookup(
            np.insert(old.hashes, places, hashes[order]), np.insert(old.numbers, places, numbers[order])
        )
        self._recent_count = 0


_hash: Callable[[str], int] = hash
"""Python's hash, keyed per process, so that callers cannot choose colliding ids. Therefore never stored."""


def _hashes(strings: Sequence[str]) -> NDArray[np.uint32]:
    return np.fromiter(map(_hash, strings), np.int64, len(strings)).astype(np.uint32)
