"""Vectors, items and filters for tests, and hypothesis strategies for them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
from hypothesis import strategies as st

from models.card import Modality
from server.domain.types import CropWarning, Filter, Fusion, Item, NewItem, Scalar, Search, SearchResult, Vectors
from server.gallery.galleries import Galleries
from server.index.ranking import fuse

DIMENSION = 8
PEOPLE = 60
FINGERPRINT = "f" * 64
START = datetime(2026, 3, 1, tzinfo=UTC)


def unit_vectors(count: int, dimension: int = DIMENSION, *, seed: int = 0) -> Vectors:
    """Return random unit vectors, float32 ``[count, dimension]``."""
    vectors = np.random.default_rng(seed).standard_normal((count, dimension))
    unit: Vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return unit


def tied_vectors(count: int, *, kinds: int, seed: int = 0) -> Vectors:
    """Return unit vectors with at most ``kinds`` different ones."""
    return unit_vectors(kinds, seed=seed)[np.random.default_rng(seed).integers(kinds, size=count)]


def new_item(
    id: str,
    vector: Vectors,
    *,
    modality: Modality = Modality.INFRARED,
    identity: str | None = None,
    camera: str | None = None,
    captured_at: datetime | None = None,
    attributes: Mapping[str, Scalar] | None = None,
    thumbnail: bytes | None = None,
) -> NewItem:
    return NewItem(Item(id, modality, identity, camera, captured_at, attributes or {}), vector, thumbnail)


def new_items(count: int, *, seed: int = 0, prefix: str = "item", vectors: Vectors | None = None) -> list[NewItem]:
    """Return varied items ``item-000`` …, some without identity, camera, time, attributes or thumbnail."""
    vectors = unit_vectors(count, seed=seed) if vectors is None else vectors
    return [
        new_item(
            f"{prefix}-{n:03d}",
            vectors[n],
            modality=tuple(Modality)[n % 2],
            identity=f"p{n // 4}" if n % 5 else None,
            camera=f"c{n % 3}" if n % 7 else None,
            captured_at=START + timedelta(microseconds=n) if n % 4 else None,
            attributes={"site": "north" if n % 2 else "south", "shift": n % 3} if n % 6 else None,
            thumbnail=f"thumbnail {seed} {n}".encode() if n % 3 else None,
        )
        for n in range(count)
    ]


def crops(dimension: int, *, seed: int = 0, prefix: str = "i", shots: int = 25) -> list[NewItem]:
    """Return ``shots`` crops per modality of each of ``PEOPLE`` people: similar, more so within a modality."""
    noise = np.random.default_rng(seed)
    people = unit_vectors(PEOPLE, dimension, seed=1)
    gap = {Modality.VISIBLE: 0.5 * unit_vectors(1, dimension, seed=2)[0], Modality.INFRARED: 0}
    items = []
    for number in noise.permutation(PEOPLE * 2 * shots).tolist():
        person, modality = number % PEOPLE, tuple(Modality)[number // PEOPLE % 2]
        vector = people[person] + gap[modality] + 0.32 / math.sqrt(dimension) * noise.standard_normal(dimension)
        unit = (vector / np.linalg.norm(vector)).astype(np.float32)
        items.append(
            new_item(f"{prefix}{number}", unit, modality=modality, identity=f"p{person}", camera=f"c{number % 3}")
        )
    return items


def score(query: Vectors, vector: Vectors) -> float:
    """Return the inner product by a plain loop, summed exactly and rounded once."""
    return float(np.float32(math.fsum(float(a) * float(b) for a, b in zip(query, vector, strict=True))))


def passes(item: Item, where: Filter) -> bool:
    """Return whether an item passes a filter: the reference, condition by condition as ``Filter`` defines it."""
    if where.modality is not None and item.modality != where.modality:
        return False
    if where.cameras and item.camera not in where.cameras:
        return False
    if where.exclude_cameras and item.camera is not None and item.camera in where.exclude_cameras:
        return False
    if where.identities and item.identity not in where.identities:
        return False
    if where.captured_from is not None and (item.captured_at is None or item.captured_at < where.captured_from):
        return False
    if where.captured_to is not None and (item.captured_at is None or item.captured_at >= where.captured_to):
        return False
    if (where.ids and item.id not in where.ids) or (where.exclude_ids and item.id in where.exclude_ids):
        return False
    if where.exclude_identities and item.identity is not None and item.identity in where.exclude_identities:
        return False
    if where.warnings and not any(warning in item.warnings for warning in where.warnings):
        return False
    if where.exclude_warnings and any(warning in item.warnings for warning in where.exclude_warnings):
        return False
    return all(_holds(item, *pair) for pair in where.attributes.items()) and not any(
        _holds(item, *pair) for pair in where.exclude_attributes.items()
    )


def _holds(item: Item, name: str, value: Scalar) -> bool:
    if name not in item.attributes:
        return False
    found = item.attributes[name]
    return found == value and isinstance(found, bool) == isinstance(value, bool)


def expected_hits(items: Sequence[NewItem], queries: Vectors, where: Filter | None = None) -> list[tuple[str, float]]:
    """Return all ids that pass with their best score over the queries, best first, ties by id: plain loops."""
    found = [
        (new.item.id, max(score(query, new.vector) for query in queries))
        for new in items
        if where is None or passes(new.item, where)
    ]
    return sorted(found, key=lambda hit: (-hit[1], hit[0]))


def search(
    galleries: Galleries,
    name: str,
    queries: Vectors,
    *,
    k: int = 10,
    fusion: Fusion = Fusion.MAX,
    fingerprint: str = FINGERPRINT,
    **options: object,
) -> SearchResult:
    """Run a search with default options."""
    request = Search(fuse(np.atleast_2d(queries), fusion), k, **options)  # type: ignore[arg-type]
    (result,) = galleries.query.search(name, [request], fingerprint=fingerprint)
    return result


def found(result: SearchResult) -> list[tuple[str, float]]:
    """Return ids and scores of the hits."""
    return [(hit.item.id, hit.score) for hit in result.hits]


def _maybe(strategy: st.SearchStrategy[str]) -> st.SearchStrategy[str | None]:
    return st.none() | strategy


ids = st.sampled_from([f"i{n}" for n in range(12)] + ["I1", "i-1", "i.1", "i:1", "i_1", "10", "9"])
identities = st.sampled_from(["p1", "p2", "p3", "Ünïcode 名"])
cameras = st.sampled_from(["c1", "c2", "c3"])
modalities = st.sampled_from(tuple(Modality))
times = st.integers(-3, 3).map(lambda n: START + timedelta(microseconds=n))
scalars: st.SearchStrategy[Scalar] = st.sampled_from(["1", "true", 0, 1, 2**53 + 1, 1.0, 0.5, True, False])
attributes = st.dictionaries(st.sampled_from(["site", "shift"]), scalars, max_size=2)

warnings = st.frozensets(st.sampled_from(tuple(CropWarning)))

items_strategy = st.builds(
    Item, ids, modalities, _maybe(identities), _maybe(cameras), st.none() | times, attributes, warnings
)
filters = st.builds(
    Filter,
    modality=st.none() | modalities,
    ids=st.none() | st.frozensets(ids | st.just("never-seen")),
    exclude_ids=st.none() | st.frozensets(ids | st.just("never-seen")),
    cameras=st.none() | st.frozensets(cameras | st.just("never seen")),
    exclude_cameras=st.none() | st.frozensets(cameras | st.just("never seen")),
    identities=st.none() | st.frozensets(identities | st.just("never seen")),
    captured_from=st.none() | times,
    captured_to=st.none() | times,
    attributes=attributes,
    exclude_identities=st.none() | st.frozensets(identities | st.just("never seen")),
    exclude_attributes=attributes,
    warnings=st.none() | warnings,
    exclude_warnings=st.none() | warnings,
)
