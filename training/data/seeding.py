"""Random choices that follow from a seed and a name, the same in every run and process."""

from __future__ import annotations

import hashlib

import numpy as np

__all__ = ["generator_of", "position"]


def generator_of(name: str, seed: int = 0) -> np.random.Generator:
    """A generator that depends on the name and the seed only."""
    digest = hashlib.sha256(f"{seed}:{name}".encode("utf-8", "surrogateescape")).digest()
    return np.random.default_rng(int.from_bytes(digest[:16]))


def position(group: str, seed: int) -> float:
    """A number in [0, 1) that depends on the seed and the group only: where a split puts it."""
    digest = hashlib.sha256(f"{seed}:{group}".encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:6]) / 2**48
