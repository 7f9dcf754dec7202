"""Vectors of another model beside a gallery's own, and galleries in the making: what every store promises of them."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

from server.errors import AliasExists, GalleryExists, GalleryNotFound
from server.gallery.protocol import Store
from server.gallery.types import Filter, Gallery, Renewal, VectorType
from server.jobs.unfinished import remove_unfinished
from tests.server.gallery.making import DIMENSION, FINGERPRINT, new_items, unit_vectors

OTHER = Renewal("job_1", "other", "e" * 64, 5)
COUNT = 12


def create(store: Store, name: str = "g", vector_type: VectorType = VectorType.FLOAT32) -> None:
    made = datetime(2026, 1, 2, tzinfo=UTC)
    store.create_gallery(Gallery(name, "m", FINGERPRINT, DIMENSION, made, 0, vector_type=vector_type))


def renew(store: Store, *, limit: int = COUNT) -> dict[str, bytes]:
    """Give as many items a vector of the other model; returns these by id."""
    found = store.unrenewed("g", limit=limit)
    vectors = unit_vectors(len(found), OTHER.dimension, seed=7)
    store.renew("g", {one.row: vector for one, vector in zip(found, vectors, strict=True)})
    return {one.item.id: vector.tobytes() for one, vector in zip(found, vectors, strict=True)}


def vectors(store: Store, name: str = "g") -> dict[str, bytes]:
    with store.dump(name) as (_, items):
        return {new.item.id: new.vector.tobytes() for new in items}


@pytest.mark.parametrize("vector_type", VectorType)
def test_a_dump_puts_the_same_gallery_again(store: Store, vector_type: VectorType) -> None:
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


def test_a_gallery_changes_over_when_no_vector_lacks(store: Store) -> None:
    create(store)
    store.put("g", new_items(COUNT))
    store.begin_renewal("g", OTHER)
    assert store.renewals() == {"g": OTHER}
    made = renew(store, limit=5)
    store.begin_renewal("g", OTHER)  # goes on
    left = store.unrenewed("g", limit=100)
    assert len(left) == COUNT - 5
    assert [one.row for one in left] == sorted(one.row for one in left)
    assert store.unrenewed("g", limit=1, after=left[0].row) == left[1:2]
    assert store.without_thumbnail("g") == sum(one.thumbnail is None for one in left) + 2
    with pytest.raises(ValueError, match="without a vector"):
        store.switch_renewal("g")
    made |= renew(store)
    before = store.sequences()
    switched: list[str] = []
    store.switch_renewal("g", lambda: switched.append(store.gallery("g").model))
    assert switched == ["other"]
    assert store.sequences() == before
    store.end_renewal("g")
    assert (vectors(store), store.renewals()) == (made, {})
    found = store.gallery("g")
    assert (found.fingerprint, found.dimension, found.items) == (OTHER.fingerprint, 5, COUNT)


def test_a_replaced_or_deleted_item_takes_its_new_vector_along(store: Store) -> None:
    create(store)
    store.put("g", new_items(COUNT))
    store.begin_renewal("g", OTHER)
    renew(store)
    assert store.unrenewed("g", limit=1) == []
    store.put("g", new_items(2, seed=1))
    store.delete_items("g", Filter(identities=frozenset({"p1"})))
    assert [one.item.id for one in store.unrenewed("g", limit=9)] == ["item-000", "item-001"]
    store.renew("g", {10**6: unit_vectors(1, 5)[0]})  # an item that is gone
    renew(store)
    with store.load("g", renewed=True) as loaded:
        shapes = [chunk.vectors.shape for chunk in loaded.chunks]
    assert shapes == [(store.gallery("g").items, 5)]


def test_another_renewal_begins_anew_and_an_ended_one_leaves_nothing(store: Store) -> None:
    create(store)
    store.put("g", new_items(COUNT))
    before = vectors(store)
    store.begin_renewal("g", OTHER)
    renew(store)
    store.begin_renewal("g", Renewal("job_2", "third", "d" * 64, 5))
    assert len(store.unrenewed("g", limit=100)) == COUNT
    renew(store)
    remove_unfinished(store, {"job_2"})
    assert store.unrenewed("g", limit=100) == []
    remove_unfinished(store, set())
    assert (store.renewals(), vectors(store), len(store.unrenewed("g", limit=100))) == ({}, before, COUNT)


def test_a_draft_is_in_no_list_until_it_has_its_name(store: Store) -> None:
    for name in ("g", "job_1~", "job_2~"):
        create(store, name)
    store.set_alias("a", "g")
    store.put("job_1~", new_items(3))
    assert [one.name for one in store.galleries()] == ["g"]
    assert (store.sequences(), sorted(store.drafts())) == ({"g": 0}, ["job_1~", "job_2~"])
    remove_unfinished(store, {"job_1"})
    assert store.drafts() == ["job_1~"]
    with pytest.raises(GalleryExists):
        store.rename_gallery("job_1~", "g")
    with pytest.raises(AliasExists):
        store.rename_gallery("job_1~", "a")
    store.rename_gallery("job_1~", "h")
    assert (store.gallery("h").items, store.drafts()) == (3, [])
    with pytest.raises(GalleryNotFound):
        store.gallery("job_1~")
