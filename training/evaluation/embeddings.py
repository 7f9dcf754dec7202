"""Embeddings with their labels, for evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from models.card import Modality

__all__ = ["Embeddings", "Labelled", "Vectors", "have_unit_length"]

Vectors = NDArray[np.float32]

UNIT_LENGTH_TOLERANCE = 1e-3


def have_unit_length(vectors: Vectors) -> bool:
    """Return whether all vectors ``[N, D]`` have unit length, up to the tolerance."""
    return np.allclose(np.linalg.norm(vectors, axis=1), 1, rtol=0, atol=UNIT_LENGTH_TOLERANCE)


class Labelled(Protocol):
    """Labels of an image that an evaluation needs; ``training.data.records.Record`` has them."""

    @property
    def path(self) -> Path: ...
    @property
    def identity(self) -> str: ...
    @property
    def camera(self) -> str: ...
    @property
    def modality(self) -> Modality: ...


@dataclass(frozen=True, eq=False, slots=True)
class Embeddings:
    """Embeddings and labels of N images; never modified.

    Args:
        vectors: float32 ``[N, D]``, finite.
        identities: str ``[N]``.
        cameras: str ``[N]``.
        modalities: int64 ``[N]``, ``Modality.index``.

    Raises:
        ValueError: a shape, type or value is invalid.
    """

    vectors: Vectors
    identities: NDArray[np.str_]
    cameras: NDArray[np.str_]
    modalities: NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.vectors.ndim != 2 or self.vectors.dtype != np.float32:
            raise ValueError(f"expected float32 vectors [N, D], found {self.vectors.dtype} {self.vectors.shape}")
        if not np.isfinite(self.vectors).all():
            raise ValueError(f"{int((~np.isfinite(self.vectors)).any(axis=1).sum())} vectors are not finite")
        for name in ("identities", "cameras", "modalities"):
            labels = getattr(self, name)
            if labels.shape != (len(self),):
                raise ValueError(f"expected {len(self)} {name}, one for each vector, found shape {labels.shape}")
        if not np.isin(self.modalities, [modality.index for modality in Modality]).all():
            raise ValueError(f"expected modalities 0 or 1, found {sorted(set(np.unique(self.modalities).tolist()))}")

    def __len__(self) -> int:
        return len(self.vectors)

    @classmethod
    def of(cls, vectors: Vectors, records: Sequence[Labelled]) -> Self:
        """Combine vectors, float32 ``[N, D]``, with the labels of their N records."""
        return cls(
            vectors,
            np.array([record.identity for record in records], dtype=np.str_),
            np.array([record.camera for record in records], dtype=np.str_),
            np.array([record.modality.index for record in records], dtype=np.int64),
        )

    def take(self, rows: NDArray[np.int64] | slice) -> Embeddings:
        """Return the images of the given rows in the given order."""
        return Embeddings(self.vectors[rows], self.identities[rows], self.cameras[rows], self.modalities[rows])
