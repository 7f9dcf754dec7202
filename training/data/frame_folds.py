"""Cross-validation folds over the frames that real pairs were cut from."""

from __future__ import annotations

import re
from pathlib import Path

from training.data.folder import read_pairs
from training.data.seeding import position

__all__ = ["FRAME_PATTERN", "fold_of", "frame_of", "frames_of_pairs"]

FRAME_PATTERN = r"(.+)_[^_]+"
"""Its first group in the name of a pair is the frame: pair ``00036N_3`` belongs to frame ``00036N``."""


def frame_of(pair: str, pattern: str = FRAME_PATTERN) -> str:
    """Return the frame that a pair was cut from.

    Raises:
        ValueError: the name does not match the pattern.
    """
    match = re.fullmatch(pattern, pair)
    if match is None:
        raise ValueError(f"pair {pair!r}: its name does not match {pattern!r}, so its frame is unknown")
    return match[1]


def fold_of(frame: str, folds: int) -> int:
    """Return the fold of a frame, 0 … folds - 1, which depends only on its name."""
    return int(position(frame, 0) * folds)


def frames_of_pairs(
    pairs: Path, fold: int | None = None, folds: int = 1, pattern: str = FRAME_PATTERN
) -> frozenset[str]:
    """Return the frames of the pairs in ``PAIRS/{visible,infrared}``: all, or those of one fold.

    Raises:
        OSError: a folder is missing.
        ValueError: the folder is not a set of pairs, or a name does not match the pattern.
    """
    frames = {frame_of(record.identity, pattern) for record in read_pairs(pairs)}
    return frozenset(frame for frame in frames if fold is None or fold_of(frame, folds) == fold)
