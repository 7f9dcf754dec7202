"""What the reader process sends of a file of vectors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["VectorRow", "VectorSurvey"]


@dataclass(frozen=True, slots=True)
class VectorSurvey:
    """How many rows there are, and what of the file is ignored."""

    rows: int
    ignored: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class VectorRow:
    """A row: its fields and the bytes of its vector, of NumPy type ``dtype``; or what is wrong with it.

    ``error`` is ``("invalid", FIELD, DETAIL)``, ``("dimension", FOUND)`` or ``("rejected", REASON)``.
    """

    name: str
    position: Any
    fields: Mapping[str, Any] | None = None
    dtype: str = "<f4"
    vector: bytes = b""
    error: tuple[str, ...] | None = None

    @property
    def size(self) -> int:
        """About how many bytes it takes."""
        return 256 + len(self.vector)
