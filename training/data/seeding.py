"""Random choices that depend on a seed and a name, the same in every run and process."""

from __future__ import annotations

import hashlib

import numpy as np

__all__ = ["generator_of", "position"]


def generator_of(name: str, seed: int = 0) -> np.random.Generator:
    """Return a generator that depends only on the name and the seed."""
    digest = hashlib.sha256(f"{seed}:{name}".encode("utf-8", "surrogateescape")).digest()
    return np.random.default_rng(int.from_bytes(digest[:16]))


def position(group: str, seed: int) -> float:
    """Return a number in [0, 1) that depends only on the seed and the group, for splits."""
    digest = hashlib.sha256(f"{seed}:{group}".encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:6]) / 2**48
