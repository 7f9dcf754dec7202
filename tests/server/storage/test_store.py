"""Contract tests of the ``Store`` protocol, run against both implementations."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.card import Modality
from server.domain.errors import (
    AliasExists,
    AliasNotFound,
    ErasureNotFound,
    GalleryExists,
    GalleryNotFound,
    ItemNotFound,
)
from server.domain.filters import matches
from server.domain.types import CropWarning, Erasure, Filter, Gallery, Item, NewItem, Scalar, VectorType
from server.storage.protocol import DeleteResult, Store
from tests.server.gallery.builders import (
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
from tests.server.memory_store import MemoryStore


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


def loaded_since(store: Store, name: str, since: int) -> tuple[set[str], set[int]]:
    """Ids and rows that ``load`` gives."""
    with store.load(name, since) as loaded:
        chunks = list(loaded.chunks)
    return (
        {item.id for chunk in chunks for item in chunk.items},
        {row for chunk in chunks for row in chunk.rows.tolist()},
    )


def all_rows(store: Store, name: str) -> list[int]:
    """The rows of all items."""
    with store.load(name) as loaded:
        rows: list[int] = loaded.rows().tolist()
        return rows


def contents(store: Store, name: str) -> tuple[int, dict[str, tuple[Item, bytes]]]:
    """Sequence number and everything that ``load`` gives, the vectors as bytes."""
    with store.load(name) as loaded:
        return loaded.sequence, {
            item.id: (item, vector.tobytes())
            for chunk in loaded.chunks
            for item, vector in zip(chunk.items, chunk.vectors, strict=True)
        }


def test_a_gallery_is_read_as_it_was_created(store: Store) -> None:
    store.create_gallery(gallery())
    assert store.gallery("g") == gallery()


def test_a_gallery_name_is_unique(store: Store) -> None:
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


def test_deleting_a_gallery_deletes_all_its_contents(store: Store) -> None:
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
def test_an_unknown_gallery_is_not_found(store: Store, call: object) -> None:
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
def test_an_unknown_item_is_not_found_and_nothing_changes(store: Store, call: object) -> None:
    store.create_gallery(gallery())
    store.put("g", new_items(2))
    with pytest.raises(ItemNotFound) as raised:
        call(store)  # type: ignore[operator]
    assert (raised.value.gallery, raised.value.item) == ("g", "x")
    assert store.sequence_numbers() == {"g": 1}


def test_items_vectors_and_thumbnails_are_read_as_they_were_put(store: Store) -> None:
    store.create_gallery(gallery())
    items = new_items(30)
    put = store.put("g", items)
    assert (put.statuses, put.sequence) == (["added"] * 30, 1)
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
    put = store.put("g", [again, new_item("j", vectors[2])])
    assert (put.statuses, put.sequence) == (["updated", "added"], 2)
    assert store.gallery("g").items == 2
    assert store.vector("g", "i")[0] == again.item
    np.testing.assert_array_equal(store.vector("g", "i")[1], vectors[1])
    with pytest.raises(ItemNotFound):
        store.thumbnail("g", "i")


def test_putting_the_same_items_again_keeps_the_contents(store: Store) -> None:
    store.create_gallery(gallery())
    store.put("g", new_items(10))
    _, before = contents(store, "g")
    assert store.put("g", new_items(10)).statuses == ["updated"] * 10
    assert contents(store, "g")[1] == before


def test_the_last_of_equal_ids_in_a_put_is_stored(store: Store) -> None:
    store.create_gallery(gallery())
    vectors = unit_vectors(2)
    put = store.put("g", [new_item("i", vectors[0], camera="c1"), new_item("i", vectors[1], camera="c2")])
    assert put.statuses == ["added", "updated"]
    assert store.gallery("g").items == 1
    assert store.item("g", "i").camera == "c2"
    np.testing.assert_array_equal(store.vector("g", "i")[1], vectors[1])


def test_galleries_do_not_share_items(store: Store) -> None:
    for name in ("g", "h"):
        store.create_gallery(gallery(name))
    store.put("g", new_items(3, seed=1))
    store.put("h", new_items(3, seed=2))
    store.delete_items("g", Filter())
    assert store.gallery("h").items == 3
    np.testing.assert_array_equal(store.vector("h", "item-001")[1], new_items(3, seed=2)[1].vector)
    assert store.sequence_numbers() == {"g": 2, "h": 1}


def test_each_change_of_items_raises_the_sequence_by_one(store: Store) -> None:
    store.create_gallery(gallery())
    seen = [store.sequence_numbers()["g"]]
    seen.append(store.put("g", new_items(6)).sequence)
    seen.append(store.update_item("g", "item-001", {"camera": "c9"})[1])
    seen.append(store.delete_item("g", "item-002").sequence)
    seen.append(store.delete_items("g", Filter(modality=Modality.VISIBLE)).sequence)
    assert seen == [0, 1, 2, 3, 4]
    assert store.delete_items("g", Filter(modality=Modality.VISIBLE)) == DeleteResult([], 0, 0, 4)
    store.update_gallery("g", {"description": "not an item"})
    assert store.sequence_numbers() == {"g": 4}
    assert contents(store, "g")[0] == 4


def test_updating_an_item_changes_only_its_metadata(store: Store) -> None:
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


def test_deleting_an_item_deletes_its_vector_and_thumbnail(store: Store) -> None:
    store.create_gallery(gallery())
    store.put("g", new_items(3))
    store.delete_item("g", "item-001")
    for call in (store.item, store.vector, store.thumbnail, store.delete_item):
        with pytest.raises(ItemNotFound):
            call("g", "item-001")
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
    assert store.put("g", items).statuses == ["added"] * 2500
    assert store.put("g", items).statuses == ["updated"] * 2500
    assert len(store.items("g", Filter(), limit=5000)) == len(contents(store, "g")[1]) == 2500
    assert len(store.delete_items("g", Filter()).ids) == 2500
    assert contents(store, "g")[1] == {}


def test_only_changes_since_a_sequence_number_are_loaded(store: Store) -> None:
    store.create_gallery(gallery())
    first = store.put("g", new_items(6))
    assert all_rows(store, "g") == sorted(first.rows.tolist()) == first.rows.tolist()
    store.update_item("g", "item-004", {"camera": "c9"})
    again = store.put("g", new_items(2, seed=1))
    store.delete_item("g", "item-003")
    store.put("g", new_items(1, prefix="other"))
    row = dict(zip([new.item.id for new in new_items(6)], first.rows.tolist(), strict=True))
    later = all_rows(store, "g")[-1]
    assert loaded_since(store, "g", 0)[0] == {f"item-00{n}" for n in (0, 1, 2, 4, 5)} | {"other-000"}
    assert loaded_since(store, "g", 1) == (
        {"item-000", "item-001", "item-004", "other-000"},
        {*again.rows.tolist(), row["item-004"], later},
    )
    assert loaded_since(store, "g", 3) == ({"other-000"}, {later})
    assert loaded_since(store, "g", 5) == (set(), set())
    assert all_rows(store, "g") == sorted([row["item-002"], row["item-004"], row["item-005"], *again.rows, later])


def test_a_replaced_item_gets_a_higher_row_and_rows_are_never_reused(store: Store) -> None:
    store.create_gallery(gallery())
    seen: list[int] = []
    for _ in range(3):
        put = store.put("g", [*new_items(2), *new_items(1)])
        assert put.rows[0] == put.rows[2]
        assert set(all_rows(store, "g")) == set(put.rows.tolist())
        assert min(put.rows) > max(seen, default=0)
        seen += put.rows.tolist()
        store.delete_item("g", "item-001")


@pytest.mark.parametrize("vector_type", VectorType)
def test_vectors_are_stored_in_the_type_of_the_gallery(store: Store, vector_type: VectorType) -> None:
    store.create_gallery(replace(gallery(), vector_type=vector_type))
    assert store.gallery("g").vector_type is vector_type
    items = new_items(30)
    store.put("g", items)
    with store.load("g") as loaded:
        for chunk in loaded.chunks:
            assert chunk.vectors.dtype == vector_type.dtype
            np.testing.assert_array_equal(chunk.vectors, np.array([new.vector for new in items]).astype(vector_type))
    for new in items:
        vector = store.vector("g", new.item.id)[1]
        assert vector.dtype == np.float32
        np.testing.assert_array_equal(vector, new.vector.astype(vector_type))


def test_a_gallery_without_thumbnails_never_stores_one(store: Store) -> None:
    store.create_gallery(replace(gallery(), thumbnails=False))
    assert store.gallery("g").thumbnails is False
    store.put("g", [new_item("i", unit_vectors(1)[0], thumbnail=b"picture")])
    with pytest.raises(ItemNotFound):
        store.thumbnail("g", "i")
    assert store.delete_item("g", "i") == DeleteResult(["i"], 1, 0, 2)


def test_content_and_warnings_change_only_when_the_item_is_replaced(store: Store) -> None:
    store.create_gallery(gallery())
    vector = unit_vectors(1)[0]
    for number in range(2 ** len(CropWarning)):
        warnings = CropWarning.from_bits(number)
        item = Item("i", Modality.VISIBLE, warnings=warnings, content=f"{number:064x}")
        store.put("g", [NewItem(item, vector)])
        assert store.item("g", "i") == item
        assert store.update_item("g", "i", {"camera": "c"})[0].warnings == warnings
        assert store.vector("g", "i")[0].content == item.content
        assert contents(store, "g")[1]["i"][0].warnings == warnings
    for name in ("warnings", "content"):
        with pytest.raises(ValueError, match=f"cannot change {name}"):
            store.update_item("g", "i", {name: None})


def test_items_and_contents_are_found_by_their_ids(store: Store) -> None:
    store.create_gallery(gallery())
    known = Item("known", Modality.VISIBLE, content="a" * 64)
    unknown = Item("unknown", Modality.VISIBLE)
    store.put("g", [NewItem(item, unit_vectors(1)[0]) for item in (known, unknown)])
    ids = ["known", "unknown", "not there"]
    assert store.content_hashes("g", ids) == {"known": "a" * 64}
    assert store.items_by_id("g", ids) == {"known": known, "unknown": unknown}
    assert store.content_hashes("g", []) == {}
    assert store.items_by_id("g", []) == {}


def test_a_deletion_reports_what_it_deleted(store: Store) -> None:
    store.create_gallery(gallery())
    items = new_items(20)
    store.put("g", items)
    with_thumbnail = sum(new.thumbnail is not None for new in items[1:])
    assert store.delete_item("g", "item-000") == DeleteResult(["item-000"], 1, 0, 2)
    assert store.delete_items("g", Filter()) == DeleteResult([new.item.id for new in items[1:]], 19, with_thumbnail, 3)


def test_items_stored_before_a_time_are_deleted(store: Store) -> None:
    store.create_gallery(gallery())
    items = [replace(new, stored_at=START + timedelta(days=n)) for n, new in enumerate(new_items(5))]
    store.put("g", items)
    deleted = store.delete_stored_before("g", START + timedelta(days=2))
    assert (deleted.ids, deleted.sequence) == (["item-000", "item-001"], 2)
    assert store.delete_stored_before("g", START).ids == []


def test_a_filter_with_a_hundred_thousand_values_works(store: Store) -> None:
    store.create_gallery(gallery())
    items = [new_item(f"i{n}", vector, identity=f"p{n}") for n, vector in enumerate(unit_vectors(6))]
    store.put("g", items)
    many = frozenset(f"p{n}" for n in range(3, 100_003))
    assert [item.id for item in store.items("g", Filter(identities=many), limit=10)] == ["i3", "i4", "i5"]
    assert [item.id for item in store.items("g", Filter(exclude_identities=many), limit=10)] == ["i0", "i1", "i2"]
    assert store.delete_items("g", Filter(identities=many)).ids == ["i3", "i4", "i5"]


def test_on_commit_is_called_once_with_the_result_of_each_write(store: Store) -> None:
    calls: list[object] = []
    store.create_gallery(gallery(), lambda: calls.append("created"))
    expected: list[object] = ["created"]
    expected.append(store.put("g", new_items(4), calls.append))
    expected.append(store.update_item("g", "item-001", {"camera": "c"}, lambda *result: calls.append(result)))
    expected.append(store.delete_item("g", "item-001", calls.append))
    expected.append(store.delete_stored_before("g", START, calls.append))
    expected.append(store.delete_items("g", Filter(), calls.append))
    expected = [one for one in expected if not (isinstance(one, DeleteResult) and not one.ids)]
    store.delete_gallery("g", lambda: calls.append("deleted"))
    assert calls == [*expected, "deleted"]


def test_on_commit_is_not_called_for_a_refused_write(store: Store) -> None:
    store.create_gallery(gallery())
    calls: list[object] = []
    with pytest.raises(GalleryExists):
        store.create_gallery(gallery(), lambda: calls.append(1))
    with pytest.raises(ItemNotFound):
        store.delete_item("g", "x", calls.append)
    with pytest.raises(GalleryNotFound):
        store.put("x", new_items(1), calls.append)
    assert calls == []


def test_an_alias_can_be_moved_to_another_gallery(store: Store) -> None:
    for name in ("march", "april"):
        store.create_gallery(gallery(name))
    store.set_alias("latest", "march")
    store.set_alias("first", "march")
    assert store.aliases() == {"first": "march", "latest": "march"}
    store.set_alias("latest", "april")
    assert store.aliases() == {"first": "march", "latest": "april"}
    store.remove_alias("latest")
    with pytest.raises(AliasNotFound):
        store.remove_alias("latest")
    with pytest.raises(GalleryNotFound):
        store.set_alias("latest", "may")
    store.delete_gallery("march")
    assert store.aliases() == {}


def test_a_gallery_and_an_alias_never_share_a_name(store: Store) -> None:
    store.create_gallery(gallery())
    store.set_alias("latest", "g")
    with pytest.raises(AliasExists) as raised:
        store.create_gallery(gallery("latest"))
    assert raised.value.alias == "latest"
    with pytest.raises(GalleryExists):
        store.set_alias("g", "g")
    assert [one.name for one in store.galleries()] == ["g"]


def test_receipts_of_erasures_are_kept_newest_first(store: Store) -> None:
    receipts = [
        Erasure(f"e{n}", "gh"[n % 2], START + timedelta(days=n // 2), f"key_{n}" if n else None, {"items": n})
        for n in range(5)
    ]
    for receipt in receipts:
        store.record_erasure(receipt)
    assert [store.erasure(receipt.id) for receipt in receipts] == receipts
    assert store.erasures(limit=10) == receipts[::-1]
    assert store.erasures(limit=2, after="e3") == [receipts[2], receipts[1]]
    assert store.erasures(limit=10, galleries=["g", "never seen"]) == receipts[4::-2]
    for call in (lambda: store.erasure("x"), lambda: store.erasures(limit=1, after="x")):
        with pytest.raises(ErasureNotFound):
            call()


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(items_strategy, max_size=12, unique_by=lambda item: item.id), filters)
def test_listing_and_deleting_agree_with_the_reference_filter(store: Store, items: list[Item], where: Filter) -> None:
    if store.sequence_numbers():
        store.delete_gallery("g")
    store.create_gallery(gallery())
    vector = unit_vectors(1)[0]
    store.put("g", [NewItem(item, vector) for item in items])
    expected = sorted(item.id for item in items if passes(item, where))
    assert sorted(item.id for item in items if matches(item, where)) == expected
    assert [item.id for item in store.items("g", where, limit=100)] == expected
    assert store.delete_items("g", where).ids == expected
    left = store.items("g", Filter(), limit=100)
    assert {item.id for item in left} == {item.id for item in items} - set(expected)


def test_memory_copies_the_callers_vector() -> None:
    store = MemoryStore()
    store.create_gallery(gallery())
    vector = unit_vectors(1)[0]
    store.put("g", [new_item("i", vector)])
    vector[:] = 0
    np.testing.assert_array_equal(store.vector("g", "i")[1], unit_vectors(1)[0])
