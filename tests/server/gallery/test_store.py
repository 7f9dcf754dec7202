"""What every store promises, held against both."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.card import Modality
from server.errors import GalleryExists, GalleryNotFound, ItemNotFound
from server.gallery.filters import matches
from server.gallery.memory import MemoryStore
from server.gallery.store import Store
from server.gallery.types import Filter, Gallery, Item, NewItem, Scalar
from tests.server.gallery.making import (
    DIMENSION,
    FINGERPRINT,
    START,
    filters,
    items_strategy,
    new_item,
    new_items,
    passes,
    unit_vectors,
)


def gallery(name: str = "g") -> Gallery:
    return Gallery(
        name=name,
        model="baseline-lite",
        fingerprint=FINGERPRINT,
        dimension=DIMENSION,
        created_at=datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
        items=0,
        description="Döor",
        retention_days=30,
    )


def contents(store: Store, name: str) -> tuple[int, dict[str, tuple[Item, bytes]]]:
    """Sequence number and everything that ``load`` gives, the vectors as bytes."""
    with store.load(name) as (sequence, chunks):
        return sequence, {
            item.id: (item, vector.tobytes())
            for chunk in chunks
            for item, vector in zip(chunk.items, chunk.vectors, strict=True)
        }


def test_a_gallery_comes_back_as_it_was_created(store: Store) -> None:
    store.create_gallery(gallery())
    assert store.gallery("g") == gallery()


def test_a_name_is_given_once(store: Store) -> None:
    store.create_gallery(gallery())
    with pytest.raises(GalleryExists) as raised:
        store.create_gallery(gallery())
    assert raised.value.gallery == "g"


def test_galleries_are_paged_by_name_in_code_point_order(store: Store) -> None:
    names = ["b", "a", "B", "a-1", "a.1", "_"]
    for name in names:
        store.create_gallery(gallery(name))
    assert [one.name for one in store.galleries()] == sorted(names)
    assert [one.name for one in store.galleries(limit=2, after="_")] == ["a", "a-1"]
    assert store.galleries(limit=2, after="b") == []


def test_only_description_and_retention_of_a_gallery_change(store: Store) -> None:
    store.create_gallery(gallery())
    changed = store.update_gallery("g", {"description": None, "retention_days": 7})
    assert (changed.description, changed.retention_days) == (None, 7)
    assert store.gallery("g") == changed
    with pytest.raises(ValueError, match="cannot change fingerprint"):
        store.update_gallery("g", {"fingerprint": "other"})
    assert store.update_gallery("g", {}) == changed


def test_a_deleted_gallery_takes_everything_along(store: Store) -> None:
    store.create_gallery(gallery())
    store.create_gallery(gallery("other"))
    store.put("g", new_items(5))
    store.put("other", new_items(3))
    store.delete_gallery("g")
    with pytest.raises(GalleryNotFound):
        store.gallery("g")
    store.create_gallery(gallery())
    assert contents(store, "g") == (0, {})
    assert store.gallery("other").items == len(contents(store, "other")[1]) == 3


@pytest.mark.parametrize(
    "call",
    [
        lambda store: store.gallery("x"),
        lambda store: store.update_gallery("x", {}),
        lambda store: store.delete_gallery("x"),
        lambda store: store.put("x", new_items(1)),
        lambda store: store.item("x", "i"),
        lambda store: store.items("x", Filter(), limit=1),
        lambda store: store.update_item("x", "i", {}),
        lambda store: store.delete_item("x", "i"),
        lambda store: store.delete_items("x", Filter()),
        lambda store: store.thumbnail("x", "i"),
        lambda store: store.vector("x", "i"),
        lambda store: contents(store, "x"),
    ],
)
def test_an_unknown_gallery_is_said_to_be_unknown(store: Store, call: object) -> None:
    with pytest.raises(GalleryNotFound) as raised:
        call(store)  # type: ignore[operator]
    assert raised.value.gallery == "x"


@pytest.mark.parametrize(
    "call",
    [
        lambda store: store.item("g", "x"),
        lambda store: store.update_item("g", "x", {"camera": "c"}),
        lambda store: store.delete_item("g", "x"),
        lambda store: store.thumbnail("g", "x"),
        lambda store: store.vector("g", "x"),
    ],
)
def test_an_unknown_item_is_said_to_be_unknown_and_nothing_happens(store: Store, call: object) -> None:
    store.create_gallery(gallery())
    store.put("g", new_items(2))
    with pytest.raises(ItemNotFound) as raised:
        call(store)  # type: ignore[operator]
    assert (raised.value.gallery, raised.value.item) == ("g", "x")
    assert store.sequences() == {"g": 1}


def test_items_vectors_and_thumbnails_come_back_as_they_were_put(store: Store) -> None:
    store.create_gallery(gallery())
    items = new_items(30)
    statuses, sequence = store.put("g", items)
    assert (statuses, sequence) == (["added"] * 30, 1)
    for new in items:
        assert store.item("g", new.item.id) == new.item
        item, vector = store.vector("g", new.item.id)
        assert item == new.item
        np.testing.assert_array_equal(vector, new.vector)
        if new.thumbnail is None:
            with pytest.raises(ItemNotFound):
                store.thumbnail("g", new.item.id)
        else:
            assert store.thumbnail("g", new.item.id) == new.thumbnail


def test_attributes_keep_their_json_types(store: Store) -> None:
    store.create_gallery(gallery())
    attributes: dict[str, Scalar] = {"text": "1", "whole": 1, "real": 1.0, "yes": True, "big": 2**60}
    store.put("g", [new_item("i", unit_vectors(1)[0], attributes=attributes)])
    kept = store.item("g", "i").attributes
    assert {name: (type(value), value) for name, value in kept.items()} == {
        name: (type(value), value) for name, value in attributes.items()
    }


def test_the_same_id_replaces_the_whole_item(store: Store) -> None:
    store.create_gallery(gallery())
    vectors = unit_vectors(3)
    store.put("g", [new_item("i", vectors[0], identity="p", camera="c", thumbnail=b"old")])
    again = new_item("i", vectors[1], modality=Modality.VISIBLE)
    statuses, sequence = store.put("g", [again, new_item("j", vectors[2])])
    assert (statuses, sequence) == (["updated", "added"], 2)
    assert store.gallery("g").items == 2
    assert store.vector("g", "i")[0] == again.item
    np.testing.assert_array_equal(store.vector("g", "i")[1], vectors[1])
    with pytest.raises(ItemNotFound):
        store.thumbnail("g", "i")


def test_putting_the_same_again_leaves_the_same_contents(store: Store) -> None:
    store.create_gallery(gallery())
    store.put("g", new_items(10))
    _, before = contents(store, "g")
    assert store.put("g", new_items(10))[0] == ["updated"] * 10
    assert contents(store, "g")[1] == before


def test_of_one_id_twice_in_a_put_the_last_stays(store: Store) -> None:
    store.create_gallery(gallery())
    vectors = unit_vectors(2)
    statuses, _ = store.put("g", [new_item("i", vectors[0], camera="c1"), new_item("i", vectors[1], camera="c2")])
    assert statuses == ["added", "updated"]
    assert store.gallery("g").items == 1
    assert store.item("g", "i").camera == "c2"
    np.testing.assert_array_equal(store.vector("g", "i")[1], vectors[1])


def test_items_of_one_gallery_are_not_those_of_another(store: Store) -> None:
    for name in ("g", "h"):
        store.create_gallery(gallery(name))
    store.put("g", new_items(3, seed=1))
    store.put("h", new_items(3, seed=2))
    store.delete_items("g", Filter())
    assert store.gallery("h").items == 3
    np.testing.assert_array_equal(store.vector("h", "item-001")[1], new_items(3, seed=2)[1].vector)
    assert store.sequences() == {"g": 2, "h": 1}


def test_each_change_of_items_raises_the_sequence_by_one(store: Store) -> None:
    store.create_gallery(gallery())
    seen = [store.sequences()["g"]]
    seen.append(store.put("g", new_items(6))[1])
    seen.append(store.update_item("g", "item-001", {"camera": "c9"})[1])
    seen.append(store.delete_item("g", "item-002"))
    seen.append(store.delete_items("g", Filter(modality=Modality.VISIBLE))[1])
    assert seen == [0, 1, 2, 3, 4]
    assert store.delete_items("g", Filter(modality=Modality.VISIBLE)) == ([], 4)
    store.update_gallery("g", {"description": "not an item"})
    assert store.sequences() == {"g": 4}
    assert contents(store, "g")[0] == 4


def test_only_the_facts_of_an_item_change_and_its_vector_stays(store: Store) -> None:
    store.create_gallery(gallery())
    store.put("g", new_items(2))
    changes = {"identity": "p9", "camera": None, "captured_at": START, "attributes": {"site": "east"}}
    item, _ = store.update_item("g", "item-001", changes)
    assert item == Item("item-001", Modality.INFRARED, "p9", None, START, {"site": "east"})
    assert store.item("g", "item-001") == item
    np.testing.assert_array_equal(store.vector("g", "item-001")[1], new_items(2)[1].vector)
    assert store.thumbnail("g", "item-001") == new_items(2)[1].thumbnail
    assert store.update_item("g", "item-001", {"captured_at": None})[0].captured_at is None
    with pytest.raises(ValueError, match="cannot change modality"):
        store.update_item("g", "item-001", {"modality": Modality.VISIBLE})


def test_a_deleted_item_leaves_with_vector_and_thumbnail(store: Store) -> None:
    store.create_gallery(gallery())
    store.put("g", new_items(3))
    store.delete_item("g", "item-001")
    for gone in (store.item, store.vector, store.thumbnail, store.delete_item):
        with pytest.raises(ItemNotFound):
            gone("g", "item-001")
    assert contents(store, "g")[1].keys() == {"item-000", "item-002"}
    assert store.gallery("g").items == 2


def test_items_are_paged_by_id_in_code_point_order(store: Store) -> None:
    store.create_gallery(gallery())
    names = ["b", "a", "B", "a-1", "a.1", "9", "10", "a:1", "a_1"]
    vectors = unit_vectors(len(names))
    store.put("g", [new_item(name, vector) for name, vector in zip(names, vectors, strict=True)])
    pages, after = [], None
    while page := store.items("g", Filter(), limit=2, after=after):
        pages.append([item.id for item in page])
        after = page[-1].id
    assert [name for page in pages for name in page] == sorted(names)
    assert {len(page) for page in pages[:-1]} == {2}


def test_pages_are_full_when_attributes_are_filtered(store: Store) -> None:
    store.create_gallery(gallery())
    store.put("g", new_items(40))
    where = Filter(attributes={"site": "north"})
    expected = [new.item.id for new in new_items(40) if passes(new.item, where)]
    assert [item.id for item in store.items("g", where, limit=5)] == expected[:5]
    assert [item.id for item in store.items("g", where, limit=5, after=expected[4])] == expected[5:10]
    assert [item.id for item in store.items("g", where, limit=1000)] == expected


def test_more_items_than_a_page_are_put_replaced_listed_loaded_and_deleted(store: Store) -> None:
    store.create_gallery(gallery())
    items = [new_item(f"i{n:04d}", vector) for n, vector in enumerate(unit_vectors(2500))]
    assert store.put("g", items)[0] == ["added"] * 2500
    assert store.put("g", items)[0] == ["updated"] * 2500
    assert len(store.items("g", Filter(), limit=5000)) == len(contents(store, "g")[1]) == 2500
    assert len(store.delete_items("g", Filter())[0]) == 2500
    assert contents(store, "g")[1] == {}


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(items_strategy, max_size=12, unique_by=lambda item: item.id), filters)
def test_listing_and_erasing_agree_with_the_filter_said_plainly(store: Store, items: list[Item], where: Filter) -> None:
    if store.sequences():
        store.delete_gallery("g")
    store.create_gallery(gallery())
    vector = unit_vectors(1)[0]
    store.put("g", [NewItem(item, vector) for item in items])
    expected = sorted(item.id for item in items if passes(item, where))
    assert sorted(item.id for item in items if matches(item, where)) == expected
    assert [item.id for item in store.items("g", where, limit=100)] == expected
    assert sorted(store.delete_items("g", where)[0]) == expected
    left = store.items("g", Filter(), limit=100)
    assert {item.id for item in left} == {item.id for item in items} - set(expected)


def test_memory_keeps_a_copy_of_the_callers_vector() -> None:
    store = MemoryStore()
    store.create_gallery(gallery())
    vector = unit_vectors(1)[0]
    store.put("g", [new_item("i", vector)])
    vector[:] = 0
    np.testing.assert_array_equal(store.vector("g", "i")[1], unit_vectors(1)[0])
