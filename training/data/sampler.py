"""Batches of P identities with K pictures of each modality."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler

from models.card import Modality
from training.data.records import Record

__all__ = ["BalancedSampler", "Draw", "Pool"]


class Draw(NamedTuple):
    """A record chosen for a batch. All that a worker needs to know: there is no epoch to hand over."""

    row: int
    """Which record."""
    epoch: int
    place: int
    """Running number of the draw in its epoch, counted over all ranks."""


@dataclass(frozen=True, slots=True)
class Pool:
    """Identities of which every batch holds equally many."""

    groups: Mapping[str, str]
    """The group of each identity: the windows of one frame are harder to tell apart than those of two."""
    identities: int
    """How many a batch holds."""
    images: int | None = None
    """Pictures of each of them in a modality; none: as many as the sampler's."""


class BalancedSampler(Sampler[list[Draw]]):
    """Yields batches of ``identities`` × ``images`` draws of each modality (a pool may have its own ``images``).

    The identities are taken from one random order after another, ``identities`` at a time, the rest of an order
    is dropped: none occurs twice in a batch, and all occur about equally often. With ``pools`` each has an order of
    its own; with ``neighbours`` above 1 so many identities of one group stand together in it, as far as they go.
    An identity's ``images`` of a modality are drawn without replacement when it has that many, else with.

    An epoch has ``per_epoch`` batches over all ranks, floor(max(#visible, #infrared) / (identities · images)) where
    none is given, at least one a rank; what does not divide by ``world_size`` is dropped. Every rank draws the same
    epoch and takes its slice.
    What is drawn follows from (seed, epoch) alone.

    Raises:
        ValueError: an identity has one modality only and ``skip_single_modality`` is off; fewer identities than a
            batch needs; a count below 1; a rank outside the world; pools that do not make a batch together.
    """

    def __init__(
        self,
        records: Sequence[Record],
        identities: int = 8,
        images: int = 4,
        *,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        skip_single_modality: bool = False,
        pools: Sequence[Pool] = (),
        neighbours: int = 1,
        per_epoch: int | None = None,
    ) -> None:
        if min(identities, images, neighbours) < 1:
            raise ValueError(
                f"expected at least 1 identity, image and neighbour, got {identities}, {images} and {neighbours}"
            )
        if not 0 <= rank < world_size:
            raise ValueError(f"expected 0 ≤ rank < world_size, got rank {rank} of {world_size}")
        rows = _rows(records)
        single = sorted(name for name, of in rows.items() if len(of) < len(Modality))
        if single and not skip_single_modality:
            raise ValueError(
                f"{len(single)} identities have one modality only: {', '.join(single[:5])}"
                f"{', …' if len(single) > 5 else ''}; set translate: channel for their data set to make "
                "infrared images of visible ones, or batch.skip_single_modality: true to leave these identities out"
            )
        self.skipped = tuple(single)
        """Identities of one modality, which are left out."""
        self._rows = {name: rows[name] for name in sorted(rows.keys() - set(single))}
        self._pools = self._checked(pools or [Pool({name: name for name in self._rows}, identities)], identities)
        self.identities, self.images, self.neighbours = identities, images, neighbours
        self.seed, self.epoch = seed, 0
        self.rank, self.world_size = rank, world_size
        counts = [sum(len(of[m]) for of in self._rows.values()) for m in Modality]
        self._length = max((per_epoch or max(counts) // (identities * images)) // world_size, 1)

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[list[Draw]]:
        yield from islice(self._all_batches(), self.rank, self._length * self.world_size, self.world_size)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration draws."""
        self.epoch = epoch

    def state_dict(self) -> dict[str, int]:
        """What the coming draws depend on, apart from the records."""
        return {"seed": self.seed, "epoch": self.epoch, "identities": self.identities, "images": self.images}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Continue another sampler's draws.

        Raises:
            ValueError: that sampler had another seed or batch.
        """
        mine = self.state_dict()
        if different := [key for key in mine if key != "epoch" and mine[key] != state[key]]:
            raise ValueError(
                "; ".join(f"{key}: stored {state[key]}, this sampler has {mine[key]}" for key in different)
            )
        self.epoch = state["epoch"]

    def _all_batches(self) -> Iterator[list[Draw]]:
        rng = np.random.default_rng((self.seed, self.epoch))
        place = 0
        for people in self._people(rng):
            rows = [row for name, k in people for m in Modality for row in _choose(rng, self._rows[name][m], k)]
            yield [Draw(row, self.epoch, place + n) for n, row in enumerate(rows)]
            place += len(rows)

    def _checked(self, pools: Sequence[Pool], identities: int) -> list[Pool]:
        """The pools without identities that are skipped."""
        kept = [replace(p, groups={n: g for n, g in sorted(p.groups.items()) if n in self._rows}) for p in pools]
        if (total := sum(pool.identities for pool in kept)) != identities:
            raise ValueError(f"a batch holds {identities} identities, and its pools {total}")
        if unknown := self._rows.keys() - {name for pool in kept for name in pool.groups}:
            raise ValueError(f"{len(unknown)} identities are in no pool, first {min(unknown)!r}")
        for pool in kept:
            if len(pool.groups) < pool.identities:
                raise ValueError(
                    f"a batch needs {pool.identities} identities with both modalities, found {len(pool.groups)}"
                )
        return kept

    def _people(self, rng: np.random.Generator) -> Iterator[list[tuple[str, int]]]:
        """The identities of one batch after another, each with its number of pictures in a modality."""
        images = [pool.images or self.images for pool in self._pools]
        for parts in zip(*(self._shares(pool, rng) for pool in self._pools), strict=True):
            yield [(name, k) for part, k in zip(parts, images, strict=True) for name in part]

    def _shares(self, pool: Pool, rng: np.random.Generator) -> Iterator[list[str]]:
        """A pool's part of one batch after another."""
        while True:
            order = self._order(pool, rng)
            for start in range(0, len(order) - pool.identities + 1, pool.identities):
                yield order[start : start + pool.identities]

    def _order(self, pool: Pool, rng: np.random.Generator) -> list[str]:
        """All identities of a pool at random, ``neighbours`` of a group side by side."""
        names = list(pool.groups)
        groups: defaultdict[str, list[str]] = defaultdict(list)
        for i in rng.permutation(len(names)):
            groups[pool.groups[names[i]]].append(names[i])
        step = self.neighbours
        runs = [members[i : i + step] for members in groups.values() for i in range(0, len(members), step)]
        return [name for i in rng.permutation(len(runs)) for name in runs[i]]


def _choose(rng: np.random.Generator, rows: list[int], images: int) -> list[int]:
    return [rows[i] for i in rng.choice(len(rows), images, replace=len(rows) < images)]


def _rows(records: Sequence[Record]) -> dict[str, dict[Modality, list[int]]]:
    """Row numbers of each identity and modality."""
    rows: defaultdict[str, dict[Modality, list[int]]] = defaultdict(dict)
    for row, record in enumerate(records):
        rows[record.identity].setdefault(record.modality, []).append(row)
    return rows
