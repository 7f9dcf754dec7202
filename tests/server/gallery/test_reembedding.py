"""Contract tests of re-embedding and of draft galleries, run against both stores."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

from server.domain.errors import AliasExists, GalleryExists, GalleryNotFound
from server.domain.types import Filter, Gallery, Reembedding, VectorType
from server.jobs.cleanup import remove_leftovers
from server.storage.protocol import Store
from tests.server.gallery.builders import DIMENSION, FINGERPRINT, new_items, unit_vectors

OTHER = Reembedding("job_1", "other", "e" * 64, 5)
COUNT = 12


def create(store: Store, name: str = "g", vector_type: VectorType = VectorType.FLOAT32) -> None:
    made = datetime(2026, 1, 2, tzinfo=UTC)
    store.create_gallery(Gallery(name, "m", FINGERPRINT, DIMENSION, made, 0, vector_type=vector_type))


def reembed(store: Store, *, limit: int = COUNT) -> dict[str, bytes]:
    """Store vectors of the other model for ``limit`` items; return them by id."""
    found = store.pending_reembedding("g", limit=limit)
    vectors = unit_vectors(len(found), OTHER.dimension, seed=7)
    store.store_reembedded("g", {one.row: vector for one, vector in zip(found, vectors, strict=True)})
    return {one.item.id: vector.tobytes() for one, vector in zip(found, vectors, strict=True)}


def vectors(store: Store, name: str = "g") -> dict[str, bytes]:
    with store.dump(name) as (_, items):
        return {new.item.id: new.vector.tobytes() for new in items}


@pytest.mark.parametrize("vector_type", VectorType)
def test_a_dump_recreates_the_same_gallery(store: Store, vector_type: VectorType) -> None:
    items = new_items(COUNT)
    for name in ("g", "h"):
        create(store, name, vector_type)
    store.put("g", items)
    with store.dump("g") as (gallery, dumped):
        found = list(dumped)
    assert (gallery.name, gallery.items) == ("g", COUNT)
    for new, old in zip(found, items, strict=True):
        assert (new.item, new.thumbnail, new.stored_at) == (old.item, old.thumbnail, old.stored_at)
        np.testing.assert_array_equal(new.vector, old.vector.astype(vector_type.dtype).astype(np.float32))
    store.put("h", found)
    assert vectors(store, "h") == vectors(store)


def test_a_gallery_switches_model_once_all_new_vectors_are_stored(store: Store) -> None:
    create(store)
    store.put("g", new_items(COUNT))
    store.begin_reembedding("g", OTHER)
    assert store.reembeddings() == {"g": OTHER}
    made = reembed(store, limit=5)
    store.begin_reembedding("g", OTHER)  # continues
    left = store.pending_reembedding("g", limit=100)
    assert len(left) == COUNT - 5
    assert [one.row for one in left] == sorted(one.row for one in left)
    assert store.pending_reembedding("g", limit=1, after=left[0].row) == left[1:2]
    assert store.count_without_thumbnail("g") == sum(one.thumbnail is None for one in left) + 2
    with pytest.raises(ValueError, match="without a vector"):
        store.switch_model("g")
    made |= reembed(store)
    before = store.sequence_numbers()
    switched: list[str] = []
    store.switch_model("g", lambda: switched.append(store.gallery("g").model))
    assert switched == ["other"]
    assert store.sequence_numbers() == before
    store.end_reembedding("g")
    assert (vectors(store), store.reembeddings()) == (made, {})
    found = store.gallery("g")
    assert (found.fingerprint, found.dimension, found.items) == (OTHER.fingerprint, 5, COUNT)


def test_replacing_or_deleting_an_item_deletes_its_reembedded_vector(store: Store) -> None:
    create(store)
    store.put("g", new_items(COUNT))
    store.begin_reembedding("g", OTHER)
    reembed(store)
    assert store.pending_reembedding("g", limit=1) == []
    store.put("g", new_items(2, seed=1))
    store.delete_items("g", Filter(identities=frozenset({"p1"})))
    assert [one.item.id for one in store.pending_reembedding("g", limit=9)] == ["item-000", "item-001"]
    store.store_reembedded("g", {10**6: unit_vectors(1, 5)[0]})  # a deleted item
    reembed(store)
    with store.load("g", reembedded=True) as loaded:
        shapes = [chunk.vectors.shape for chunk in loaded.chunks]
    assert shapes == [(store.gallery("g").items, 5)]


def test_another_reembedding_starts_over_and_an_ended_one_leaves_no_vectors(store: Store) -> None:
    create(store)
    store.put("g", new_items(COUNT))
    before = vectors(store)
    store.begin_reembedding("g", OTHER)
    reembed(store)
    store.begin_reembedding("g", Reembedding("job_2", "third", "d" * 64, 5))
    assert len(store.pending_reembedding("g", limit=100)) == COUNT
    reembed(store)
    remove_leftovers(store, {"job_2"})
    assert store.pending_reembedding("g", limit=100) == []
    remove_leftovers(store, set())
    assert (store.reembeddings(), vectors(store), len(store.pending_reembedding("g", limit=100))) == ({}, before, COUNT)


def test_a_draft_is_not_listed_until_it_is_renamed(store: Store) -> None:
    for name in ("g", "job_1~", "job_2~"):
        create(store, name)
    store.set_alias("a", "g")
    store.put("job_1~", new_items(3))
    assert [one.name for one in store.galleries()] == ["g"]
    assert (store.sequence_numbers(), sorted(store.drafts())) == ({"g": 0}, ["job_1~", "job_2~"])
    remove_leftovers(store, {"job_1"})
    assert store.drafts() == ["job_1~"]
    with pytest.raises(GalleryExists):
        store.rename_gallery("job_1~", "g")
    with pytest.raises(AliasExists):
        store.rename_gallery("job_1~", "a")
    store.rename_gallery("job_1~", "h")
    assert (store.gallery("h").items, store.drafts()) == (3, [])
    with pytest.raises(GalleryNotFound):
        store.gallery("job_1~")
