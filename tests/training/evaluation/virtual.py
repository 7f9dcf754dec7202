"""Records of SYSU-MM01 made from its permutation file, and the path of that file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.card import Modality
from training.evaluation.embeddings import Embeddings, Labelled
from training.evaluation.sampling import Permutation

OFFICIAL = Path(__file__).parents[4] / "shared" / "data" / "sysu-mm01-split"
INFRARED_CAMERAS = (3, 6)


@dataclass(frozen=True)
class VirtualRecord:
    path: Path
    identity: str
    camera: str
    modality: Modality


def sysu_records(permutation: Permutation, identities: Iterable[int]) -> list[Labelled]:
    """Every image of those identities: files numbered 1…n in the published layout."""
    chosen = set(identities)
    return [
        VirtualRecord(
            Path(f"cam{camera}/{identity:04d}/{number:04d}.jpg"),
            f"{identity:04d}",
            str(camera),
            Modality.INFRARED if camera in INFRARED_CAMERAS else Modality.VISIBLE,
        )
        for (camera, identity), rows in permutation.items()
        if identity in chosen
        for number in range(1, rows.shape[1] + 1)
    ]


def drawn_permutation(seed: int, identities: Iterable[int]) -> Permutation:
    """A small permutation of the published form: every camera lacks some identities."""
    rng = np.random.default_rng(seed)
    cells = {}
    for identity in identities:
        for camera in range(1, 7):
            if rng.random() < 0.8:
                count = int(rng.integers(10, 15))
                cells[camera, identity] = np.stack([rng.permutation(count) + 1 for _ in range(10)])
    return cells


def random_embeddings(records: list[Labelled], seed: int, dimension: int = 8) -> Embeddings:
    vectors = np.random.default_rng(seed).standard_normal((len(records), dimension)).astype(np.float32)
    return Embeddings.of(vectors, records)
