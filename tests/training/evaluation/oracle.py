"""Reference implementation of the metrics in plain loops, and random cases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from training.evaluation.embeddings import Embeddings

Image = tuple[str, str]  # identity, camera


@dataclass
class Expected:
    cmc: list[float]
    precision: list[float]
    penalty: list[float]
    chance: list[float]


def never(query: Image, image: Image) -> bool:
    return False


def same_identity_and_camera(query: Image, image: Image) -> bool:
    return query == image


def cam3_ignores_cam2(query: Image, image: Image) -> bool:
    return query[1] == "cam3" and image[1] == "cam2"


def images(embeddings: Embeddings) -> list[Image]:
    return list(zip(embeddings.identities.tolist(), embeddings.cameras.tolist(), strict=True))


def evaluate_by_loops(
    scores: Sequence[Sequence[float]],
    query: list[Image],
    gallery: list[Image],
    leaves_out: Callable[[Image, Image], bool],
    distinct: bool,
    max_rank: int,
) -> Expected:
    """Metrics of every valid query; ``scores[q][g]`` larger is nearer."""
    hits_at = [0] * max_rank
    expected = Expected([], [], [], [])
    for row, one in zip(scores, query, strict=True):
        kept = [g for g in range(len(gallery)) if not leaves_out(one, gallery[g])]
        ranked = [gallery[g][0] for _, g in sorted((-row[g], g) for g in kept)]
        if one[0] not in ranked:
            continue
        found, precisions = 0, []
        for position, identity in enumerate(ranked, start=1):
            if identity == one[0]:
                found += 1
                precisions.append(found / position)
                last = position
        expected.precision.append(sum(precisions) / found)
        expected.penalty.append(found / last)
        expected.chance.append(found / len(ranked))
        listed = list(dict.fromkeys(ranked)) if distinct else ranked
        for k in range(1, max_rank + 1):
            hits_at[k - 1] += one[0] in listed[:k]
    expected.cmc = [hits / max(1, len(expected.precision)) for hits in hits_at]
    return expected


def exact_scores(query: Embeddings, gallery: Embeddings) -> list[list[float]]:
    """Inner products; exact in float64 for the coarse vectors of ``random_case``."""
    return [
        [sum(a * b for a, b in zip(q, g, strict=True)) for g in gallery.vectors.tolist()]
        for q in query.vectors.tolist()
    ]


def random_case(seed: int) -> tuple[Embeddings, Embeddings]:
    """A small query set and gallery with many ties; sizes, identities, cameras and shots vary with the seed."""
    rng = np.random.default_rng(seed)
    queries, size = int(rng.integers(1, 9)), int(rng.integers(1, 25))
    people, cameras = int(rng.integers(1, 7)), int(rng.integers(1, 5))
    steps = int(rng.choice([1, 2, 8]))

    def draw(count: int) -> Embeddings:
        return Embeddings(
            (rng.integers(-steps, steps + 1, (count, int(1 + seed % 3))) / steps).astype(np.float32),
            np.array([f"p{i}" for i in rng.integers(0, people, count)]),
            np.array([f"cam{i}" for i in rng.integers(1, cameras + 1, count)]),
            np.zeros(count, dtype=np.int64),
        )

    return draw(queries), draw(size)
