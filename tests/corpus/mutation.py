"""Seeded damage of valid files."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

__all__ = ["damaged"]

Mutation = Callable[[Random, bytearray], None]

_EDGES = (0, 1, 0x7F, 0x80, 0xFE, 0xFF)
_LONGEST_RUN = 4096


def damaged(draw: Random, data: bytes) -> bytes:
    """Return the file after one to four random mutations."""
    changed = bytearray(data)
    for _ in range(draw.randint(1, 4)):
        if changed:
            draw.choice(_MUTATIONS)(draw, changed)
    return bytes(changed)


def _flip_bits(draw: Random, data: bytearray) -> None:
    for _ in range(draw.randint(1, 16)):
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)


def _set_bytes(draw: Random, data: bytearray) -> None:
    start = draw.randrange(len(data))
    for place in range(start, min(len(data), start + draw.randint(1, 8))):
        data[place] = draw.choice(_EDGES)


def _set_header_bytes(draw: Random, data: bytearray) -> None:
    """Change what readers trust first: sizes, counts and offsets."""
    for _ in range(draw.randint(1, 4)):
        data[draw.randrange(min(64, len(data)))] = draw.choice(_EDGES)


def _cut(draw: Random, data: bytearray) -> None:
    del data[draw.randrange(len(data)) :]


def _remove(draw: Random, data: bytearray) -> None:
    start = draw.randrange(len(data))
    del data[start : start + draw.randint(1, 64)]


def _repeat(draw: Random, data: bytearray) -> None:
    start = draw.randrange(len(data))
    part = data[start : start + draw.randint(1, 256)]
    data[start:start] = part * draw.randint(1, 16)


def _fill(draw: Random, data: bytearray) -> None:
    start = draw.randrange(len(data))
    data[start:start] = bytes([draw.choice(_EDGES)]) * draw.randint(1, _LONGEST_RUN)


def _move(draw: Random, data: bytearray) -> None:
    start, to = draw.randrange(len(data)), draw.randrange(len(data))
    part = data[start : start + draw.randint(1, 128)]
    data[to : to + len(part)] = part


def _append(draw: Random, data: bytearray) -> None:
    data += draw.randbytes(draw.randint(1, _LONGEST_RUN))


_MUTATIONS: tuple[Mutation, ...] = (
    _flip_bits,
    _set_bytes,
    _set_header_bytes,
    _cut,
    _remove,
    _repeat,
    _fill,
    _move,
    _append,
)
