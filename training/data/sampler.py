"""Sampler of batches with P identities and K images of each modality."""

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
    """A record chosen for a batch, with everything that a worker needs to load it."""

    row: int
    """Index of the record."""
    epoch: int
    place: int
    """Number of the draw in its epoch, counted over all ranks."""


@dataclass(frozen=True, slots=True)
class Pool:
    """Identities that have a fixed share of every batch."""

    groups: Mapping[str, str]
    """The group of each identity, such as the frame of a window."""
    identities: int
    """Number of its identities in a batch."""
    images: int | None = None
    """Images of each identity in a modality; None: the sampler's number."""


class BalancedSampler(Sampler[list[Draw]]):
    """Yields batches of ``identities`` × ``images`` draws of each modality (a pool may have its own ``images``).

    The identities are shuffled and consumed in chunks of ``identities``; an incomplete last chunk is dropped and the
    identities are shuffled again. So none occurs twice in a batch, and all occur about equally often. Each of ``pools``
    is shuffled separately; with ``neighbours`` above 1 up to that many identities of one group are adjacent. An
    identity's ``images`` of a modality are drawn without replacement if it has that many, else with replacement.

    An epoch has ``per_epoch`` batches over all ranks, by default floor(max(#visible, #infrared) / (identities ·
    images)), and at least one per rank; a remainder of the division by ``world_size`` is dropped. Every rank draws the
    same epoch and uses its slice. Draws depend only on (seed, epoch).

    Raises:
        ValueError: an identity has only one modality and ``skip_single_modality`` is off; there are too few identities
            for a batch; a count is below 1; the rank is invalid; the pools do not add up to a batch.
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
                f"{len(single)} identities have only one modality: {', '.join(single[:5])}"
                f"{', …' if len(single) > 5 else ''}; set translate: channel for their data set to translate visible "
                "images to infrared, or batch.skip_single_modality: true to ignore these identities"
            )
        self.skipped = tuple(single)
        """Identities with one modality, which are ignored."""
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
        """Return the state that determines the next draws, besides the records."""
        return {"seed": self.seed, "epoch": self.epoch, "identities": self.identities, "images": self.images}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Continue another sampler's draws.

        Raises:
            ValueError: that sampler has another seed or batch size.
        """
        own = self.state_dict()
        if different := [key for key in own if key != "epoch" and own[key] != state[key]]:
            raise ValueError("; ".join(f"{key}: stored {state[key]}, this sampler has {own[key]}" for key in different))
        self.epoch = state["epoch"]

    def _all_batches(self) -> Iterator[list[Draw]]:
        rng = np.random.default_rng((self.seed, self.epoch))
        place = 0
        for people in self._people(rng):
            rows = [row for name, k in people for m in Modality for row in _choose(rng, self._rows[name][m], k)]
            yield [Draw(row, self.epoch, place + n) for n, row in enumerate(rows)]
            place += len(rows)

    def _checked(self, pools: Sequence[Pool], identities: int) -> list[Pool]:
        """Check the pools and remove the ignored identities from them."""
        kept = [replace(p, groups={n: g for n, g in sorted(p.groups.items()) if n in self._rows}) for p in pools]
        if (total := sum(pool.identities for pool in kept)) != identities:
            raise ValueError(f"a batch has {identities} identities, but its pools have {total}")
        if unknown := self._rows.keys() - {name for pool in kept for name in pool.groups}:
            raise ValueError(f"{len(unknown)} identities are not in any pool, first {min(unknown)!r}")
        for pool in kept:
            if len(pool.groups) < pool.identities:
                raise ValueError(
                    f"a batch needs {pool.identities} identities with both modalities, found {len(pool.groups)}"
                )
        return kept

    def _people(self, rng: np.random.Generator) -> Iterator[list[tuple[str, int]]]:
        """Yield the identities of each batch, with their number of images in a modality."""
        images = [pool.images or self.images for pool in self._pools]
        for parts in zip(*(self._shares(pool, rng) for pool in self._pools), strict=True):
            yield [(name, k) for part, k in zip(parts, images, strict=True) for name in part]

    def _shares(self, pool: Pool, rng: np.random.Generator) -> Iterator[list[str]]:
        """Yield the part of a pool for each batch."""
        while True:
            order = self._order(pool, rng)
            for start in range(0, len(order) - pool.identities + 1, pool.identities):
                yield order[start : start + pool.identities]

    def _order(self, pool: Pool, rng: np.random.Generator) -> list[str]:
        """Return all identities of a pool in random order, ``neighbours`` of a group adjacent."""
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
    """Return the indices of the records of each identity and modality."""
    rows: defaultdict[str, dict[Modality, list[int]]] = defaultdict(dict)
    for row, record in enumerate(records):
        rows[record.identity].setdefault(record.modality, []).append(row)
    return rows
