"""Folders of drawn people in the layout of the documentation."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from models.card import Modality
from vireid.drawing import draw_person

__all__ = ["draw_person", "write_people"]


def write_people(
    root: Path,
    identities: Iterable[int],
    *,
    images: int = 4,
    modalities: Iterable[Modality] = tuple(Modality),
    size: tuple[int, int] = (128, 64),
) -> Path:
    """Write crops as ``root/MODALITY/IDENTITY/IDENTITY_cCAMERA_NUMBER.png``, and return ``root``.

    Visible crops are of cameras 1 and 2, infrared ones of 3 and 4.
    """
    for identity in identities:
        for modality in modalities:
            folder = root / modality / f"{identity:04d}"
            folder.mkdir(parents=True, exist_ok=True)
            for number in range(images):
                camera = 1 + number % 2 + 2 * modality.index
                pixels = draw_person(identity, modality, seed=number, size=size)
                Image.fromarray(pixels).save(folder / f"{identity:04d}_c{camera}_{number}.png")
    return root
