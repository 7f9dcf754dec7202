"""The galleries as a whole: what is bound, refused, found, and seen after a restart or a failure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from threading import Event

import numpy as np
import pytest

from models.card import Modality
from server.errors import GalleryExists, GalleryNotFound, ItemNotFound, ModelMismatch, NotReady
from server.gallery.flat import FaissFlat
from server.gallery.index import BruteForce, FilterIgnored
from server.gallery.memory import MemoryStore
from server.gallery.protocol import Loaded, Put, Store
from server.gallery.refused import DatabaseDamaged
from server.gallery.service import Galleries
from server.gallery.store import SqlStore
from server.gallery.types import Filter, Fusion, Item, NewItem, Vectors, VectorType
from tests.server.gallery.making import (
    DIMENSION,
    FINGERPRINT,
    START,
    expected_hits,
    found,
    new_item,
    new_items,
    search,
    tied_vectors,
    unit_vectors,
)
from tests.server.gallery.test_index import IgnoresItsMask


@pytest.fixture
def galleries(store: Store) -> Galleries:
    """A façade over each kind of store, with an empty gallery ``g``."""
    made = Galleries(store, FaissFlat)
    made.create("g", model="m", fingerprint=FINGERPRINT, dimension=DIMENSION)
    return made


def test_a_gallery_is_listed_as_created_and_counts_its_items(galleries: Galleries) -> None:
    before = datetime.now(UTC)
    made = galleries.create("h", model="m", fingerprint=FINGERPRINT, dimension=4, retention_days=30, description="Door")
    assert before - timedelta(seconds=1) < made.created_at <= datetime.now(UTC)
    assert (made.items, made.retention_days, made.description, made.dimension) == (0, 30, "Door", 4)
    galleries.put("g", new_items(3), fingerprint=FINGERPRINT)
    assert galleries.get("h") == made
    assert galleries.get("g").items == 3
    assert galleries.bound("g").fingerprint == FINGERPRINT
    assert [one.name for one in galleries.list(limit=10)] == ["g", "h"]
    assert [one.name for one in galleries.list(limit=1, after="g")] == ["h"]
    with pytest.raises(GalleryExists):
        galleries.create("h", model="m", fingerprint=FINGERPRINT, dimension=4)


def test_a_deleted_gallery_is_gone_and_its_name_is_free(galleries: Galleries) -> None:
    galleries.put("g", new_items(3), fingerprint=FINGERPRINT)
    galleries.delete("g")
    for call in (
        lambda: galleries.get("g"),
        lambda: galleries.bound("g"),
        lambda: search(galleries, "g", unit_vectors(1)),
        lambda: galleries.put("g", new_items(1), fingerprint=FINGERPRINT),
        lambda: galleries.delete("g"),
        lambda: galleries.delete_item("g", "item-000"),
    ):
        with pytest.raises(GalleryNotFound):
            call()
    assert galleries.progress() == {}
    galleries.create("g", model="other", fingerprint="e" * 64, dimension=3)
    assert galleries.put("g", [new_item("i", unit_vectors(1, 3)[0])], fingerprint="e" * 64) == ["added"]


@pytest.mark.parametrize("build", [FaissFlat, BruteForce])
@pytest.mark.parametrize("fusion", Fusion)
@pytest.mark.parametrize("queries", [1, 4])
def test_a_search_equals_plain_loops(build: type[FaissFlat], fusion: Fusion, queries: int) -> None:
    galleries = Galleries(MemoryStore(), build)
    galleries.create("g", model="m", fingerprint=FINGERPRINT, dimension=DIMENSION)
    items = new_items(60, vectors=tied_vectors(60, kinds=25))
    galleries.put("g", items, fingerprint=FINGERPRINT)
    probes = unit_vectors(queries, seed=4)
    where = Filter(modality=Modality.INFRARED, exclude_cameras=frozenset({"c1"}))
    result = search(galleries, "g", probes, k=12, where=where, fusion=fusion)
    if fusion is Fusion.MEAN and queries > 1:
        mean = probes.astype(np.float64).mean(axis=0)
        probes = (mean / np.linalg.norm(mean)).astype(np.float32)[None]
    expected = expected_hits(items, probes, where)
    assert found(result) == expected[:12]
    assert result.searched == len(expected)
    assert result.groups is None
    assert {hit.item.id: hit.item for hit in result.hits}.items() <= {new.item.id: new.item for new in items}.items()


def test_groups_hold_all_hits_of_the_best_identities_and_hits_stay_the_same(galleries: Galleries) -> None:
    items = new_items(60)
    galleries.put("g", items, fingerprint=FINGERPRINT)
    query = unit_vectors(1, seed=4)
    result = search(galleries, "g", query, k=6, group=True, min_score=-0.3)
    ranked = [hit for hit in expected_hits(items, query) if hit[1] >= -0.3]
    identity = {new.item.id: new.item.identity for new in items}
    groups: dict[str, list[tuple[str, float]]] = {}
    for id, value in ranked:
        groups.setdefault(identity[id] or f"alone {id}", []).append((id, value))
    assert result.groups is not None
    assert [[(hit.item.id, hit.score) for hit in group.hits] for group in result.groups] == list(groups.values())[:6]
    for group in result.groups:
        assert group.score == group.hits[0].score
        assert {hit.item.identity for hit in group.hits} == {group.identity}
    assert found(result) == ranked[:6]
    assert found(result) == found(search(galleries, "g", query, k=6, min_score=-0.3))


def test_an_excluded_item_does_not_count(galleries: Galleries) -> None:
    items = new_items(9)
    galleries.put("g", items, fingerprint=FINGERPRINT)
    _, vector = galleries.vector("g", "item-004")
    everything = search(galleries, "g", vector)
    others = search(galleries, "g", vector, exclude="item-004")
    assert found(others) == found(everything)[1:]
    assert (everything.searched, others.searched) == (9, 8)
    assert found(search(galleries, "g", vector, exclude="not there")) == found(everything)


def test_searching_what_is_empty_or_all_filtered_finds_nothing(galleries: Galleries) -> None:
    for group in (False, True):
        result = search(galleries, "g", unit_vectors(1), group=group)
        assert (result.hits, result.searched, result.groups) == ((), 0, () if group else None)
    galleries.put("g", new_items(5), fingerprint=FINGERPRINT)
    assert search(galleries, "g", unit_vectors(1), where=Filter(cameras=frozenset({"c99"}))).hits == ()
    assert search(galleries, "g", unit_vectors(1), min_score=1.5, group=True).groups == ()


def test_another_model_is_refused_for_writing_and_searching(galleries: Galleries) -> None:
    other = "e" * 64
    for call in (
        lambda: galleries.put("g", new_items(1), fingerprint=other),
        lambda: search(galleries, "g", unit_vectors(1), fingerprint=other),
    ):
        with pytest.raises(ModelMismatch) as raised:
            call()
        assert (raised.value.gallery, raised.value.expected, raised.value.found) == ("g", FINGERPRINT, other)


def test_another_dimension_is_refused_for_writing_and_searching(galleries: Galleries) -> None:
    short = unit_vectors(1, 5)
    for call in (
        lambda: galleries.put("g", [*new_items(2), new_item("x", short[0])], fingerprint=FINGERPRINT),
        lambda: search(galleries, "g", short),
    ):
        with pytest.raises(ModelMismatch) as raised:
            call()
        assert (raised.value.expected, raised.value.found) == ("dimension 8", "dimension 5")
    assert galleries.get("g").items == 0


@pytest.mark.parametrize(
    ("spoil", "norm"),
    [
        (lambda v: v * 1.01, "1.01"),
        (lambda v: v * 0.5, "0.5"),
        (lambda v: v * 0, "0"),
        (lambda v: v * np.float32(np.nan), "nan"),
        (lambda v: np.where(np.arange(len(v)) == 2, np.inf, v), "inf"),
        (lambda v: v * 3e38, "3e\\+38"),
    ],
)
def test_a_vector_that_is_not_a_unit_vector_is_refused_by_its_index_and_norm(
    galleries: Galleries, spoil: Callable[[Vectors], Vectors], norm: str
) -> None:
    items = new_items(4)
    items[2] = replace(items[2], vector=spoil(items[2].vector).astype(np.float32))
    with pytest.raises(ValueError, match=f"vector 2 has norm {norm}, expected 1"):
        galleries.put("g", items, fingerprint=FINGERPRINT)
    with pytest.raises(ValueError, match=f"vector 0 has norm {norm}"):
        search(galleries, "g", items[2].vector)
    assert galleries.get("g").items == 0


def test_a_vector_within_the_tolerance_is_taken(galleries: Galleries) -> None:
    for factor in (0.9991, 1.0009):
        galleries.put("g", [new_item("i", unit_vectors(1)[0] * np.float32(factor))], fingerprint=FINGERPRINT)


@pytest.mark.parametrize("k", [0, -1])
def test_fewer_than_one_hit_cannot_be_asked_for(galleries: Galleries, k: int) -> None:
    with pytest.raises(ValueError, match=f"found {k}"):
        search(galleries, "g", unit_vectors(1), k=k)


def test_a_search_needs_a_query(galleries: Galleries) -> None:
    with pytest.raises(ValueError, match="at least one query"):
        search(galleries, "g", unit_vectors(0))


def test_changed_facts_are_filtered_on_at_once(galleries: Galleries) -> None:
    galleries.put("g", new_items(6), fingerprint=FINGERPRINT)
    where = Filter(
        cameras=frozenset({"new"}), identities=frozenset({"named"}), captured_from=START, attributes={"seen": True}
    )
    assert search(galleries, "g", unit_vectors(1), where=where).searched == 0
    item = galleries.update_item(
        "g", "item-003", {"camera": "new", "identity": "named", "captured_at": START, "attributes": {"seen": True}}
    )
    result = search(galleries, "g", unit_vectors(1), where=where)
    assert [hit.item for hit in result.hits] == [item] == galleries.items("g", where, limit=5)


def test_a_replaced_item_is_found_by_its_new_vector_alone(galleries: Galleries) -> None:
    old, new = unit_vectors(2)
    galleries.put("g", [new_item("i", old)], fingerprint=FINGERPRINT)
    assert galleries.put("g", [new_item("i", new)], fingerprint=FINGERPRINT) == ["updated"]
    result = search(galleries, "g", old)
    assert (result.searched, len(result.hits)) == (1, 1)
    assert result.hits[0].score < 0.99
    assert search(galleries, "g", new).hits[0].score == pytest.approx(1)


def test_memory_is_compacted_when_more_than_a_fifth_is_dead(galleries: Galleries) -> None:
    items = new_items(100)
    galleries.put("g", items, fingerprint=FINGERPRINT)
    for new in items[:20]:
        galleries.delete_item("g", new.item.id)
    galleries.maintain()
    assert _rows(galleries) == 100
    galleries.delete_item("g", items[20].item.id)
    galleries.maintain()
    assert _rows(galleries) == 79
    query = unit_vectors(1, seed=3)
    assert found(search(galleries, "g", query, k=100)) == expected_hits(items[21:], query)
    galleries.delete_item("g", items[21].item.id)
    assert found(search(galleries, "g", query, k=100)) == expected_hits(items[22:], query)
    assert galleries.progress() == {"g": (23, 23)}


def _rows(galleries: Galleries) -> int:
    """How many rows memory holds of gallery ``g``, dead ones too."""
    return len(galleries._opened["g"].ready().view().alive)


def test_a_float16_gallery_is_searched_by_the_vectors_that_it_keeps(galleries: Galleries) -> None:
    galleries.create("h", model="m", fingerprint=FINGERPRINT, dimension=DIMENSION, vector_type=VectorType.FLOAT16)
    assert galleries.get("h").vector_type is VectorType.FLOAT16
    items = new_items(60)
    galleries.put("h", items, fingerprint=FINGERPRINT)
    rounded = [replace(new, vector=new.vector.astype(np.float16).astype(np.float32)) for new in items]
    query = unit_vectors(1, seed=4)
    assert found(search(galleries, "h", query, k=60)) == expected_hits(rounded, query)
    assert found(search(galleries, "h", query, k=60)) != expected_hits(items, query)
    assert galleries.vector("h", "item-007")[1].tobytes() == rounded[7].vector.tobytes()


def test_a_gallery_without_thumbnails_keeps_none(galleries: Galleries) -> None:
    galleries.create("h", model="m", fingerprint=FINGERPRINT, dimension=DIMENSION, thumbnails=False)
    galleries.put("h", [new_item("i", unit_vectors(1)[0], thumbnail=b"image")], fingerprint=FINGERPRINT)
    with pytest.raises(ItemNotFound):
        galleries.thumbnail("h", "i")


def test_an_alias_stands_for_its_gallery_until_it_is_moved_or_either_goes(store: Store, galleries: Galleries) -> None:
    galleries.create("h", model="m", fingerprint=FINGERPRINT, dimension=DIMENSION)
    galleries.set_alias("latest", "g")
    assert (galleries.resolve("latest"), galleries.resolve("h")) == ("g", "h")
    galleries.set_alias("latest", "h")
    galleries.set_alias("old", "g")
    assert galleries.aliases() == {"latest": "h", "old": "g"}
    assert Galleries(store, FaissFlat).resolve("latest") == "h"
    galleries.delete("h")
    galleries.remove_alias("old")
    assert galleries.aliases() == {}
    assert [galleries.resolve(name) for name in ("latest", "old", "g")] == ["latest", "old", "g"]


class Waits(MemoryStore):
    """A store that can be read and checked only when it is told so."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.check_may_end, self.load_may_end = Event(), Event(), Event()

    def load(self, name: str, since: int = 0) -> AbstractContextManager[Loaded]:  # type: ignore[override]  # what the protocol says
        if name == "large":
            self.begun.set()
            assert self.load_may_end.wait(10)
        return super().load(name, since)

    def check(self) -> None:
        assert self.check_may_end.wait(10)


def _waiting() -> Waits:
    store = Waits()
    store.check_may_end.set()
    galleries = Galleries(store, FaissFlat)
    for name, count in (("large", 9), ("small", 2)):
        galleries.create(name, model="m", fingerprint=FINGERPRINT, dimension=DIMENSION)
        galleries.put(name, new_items(count), fingerprint=FINGERPRINT)
    store.check_may_end.clear()
    return store


def test_nothing_is_answered_in_the_background_before_it_is_loaded_and_checked() -> None:
    store = _waiting()
    galleries = Galleries(store, FaissFlat, in_background=True)
    assert store.begun.wait(10)
    assert galleries.unloaded() == {"large": (0, 9)}
    for call in (
        lambda: search(galleries, "large", unit_vectors(1)),
        lambda: search(galleries, "small", unit_vectors(1)),
        lambda: galleries.item("small", "item-000"),
        lambda: galleries.items("small", Filter(), limit=1),
        lambda: galleries.put("small", new_items(1), fingerprint=FINGERPRINT),
        lambda: galleries.erase("large", Filter()),
        lambda: galleries.delete("small"),
        lambda: galleries.list(limit=1),
        lambda: galleries.expire(START),
    ):
        with pytest.raises(NotReady):
            call()
    with pytest.raises(GalleryNotFound):
        galleries.get("nothing")
    assert galleries.progress() == {"large": (1, -1), "small": (1, 1)}
    store.load_may_end.set()
    store.check_may_end.set()
    galleries.loading.result(10)
    assert galleries.unloaded() == {}
    assert search(galleries, "large", unit_vectors(1)).searched == 9
    assert galleries.progress() == {"large": (1, 1), "small": (1, 1)}


@pytest.mark.parametrize("in_background", [False, True])
@pytest.mark.parametrize("method", ["check", "load"])
def test_a_damaged_store_is_not_served(monkeypatch: pytest.MonkeyPatch, method: str, in_background: bool) -> None:
    store = _waiting()
    store.load_may_end.set()
    store.check_may_end.set()

    def fail(*_args: object) -> None:
        raise DatabaseDamaged("file", "it is broken")

    monkeypatch.setattr(store, method, fail)
    with pytest.raises(DatabaseDamaged, match="it is broken"):
        Galleries(store, FaissFlat, in_background=in_background).loading.result(10)


def test_everything_is_there_after_a_restart(url: str) -> None:
    store = SqlStore(url)
    galleries = Galleries(store, FaissFlat)
    for name in ("g", "h"):
        galleries.create(name, model="m", fingerprint=FINGERPRINT, dimension=DIMENSION)
    items = new_items(50)
    galleries.put("g", items, fingerprint=FINGERPRINT)
    galleries.put("h", items[:5], fingerprint=FINGERPRINT)
    galleries.erase("g", Filter(cameras=frozenset({"c1"})))
    left = [new for new in items if new.item.camera != "c1"]
    galleries.close()

    galleries = Galleries(SqlStore(url), FaissFlat)
    query = unit_vectors(2, seed=8)
    assert found(search(galleries, "g", query, k=100)) == expected_hits(left, query)
    assert galleries.progress() == {"g": (2, 2), "h": (1, 1)}
    thumbnail = next(new for new in left if new.thumbnail)
    assert galleries.thumbnail("g", thumbnail.item.id) == thumbnail.thumbnail
    galleries.close()


def test_an_index_that_ignores_its_mask_is_refused_before_anything_is_served() -> None:
    with pytest.raises(FilterIgnored):
        Galleries(MemoryStore(), IgnoresItsMask)


class Fragile(MemoryStore):
    """Fails on demand: before it has stored anything, after it, or whenever asked."""

    fails_before = fails_after = fails_always = False

    def put(self, name: str, items: Sequence[NewItem], then: Callable[[Put], None] | None = None) -> Put:
        if self.fails_before:
            raise OSError("before")
        done = super().put(name, items, None if self.fails_after else then)
        if self.fails_after:
            raise OSError("after")
        return done

    def sequences(self) -> dict[str, int]:
        if self.fails_always:
            raise OSError("always")
        return super().sequences()


def _fragile() -> tuple[Fragile, Galleries]:
    store = Fragile()
    galleries = Galleries(store, FaissFlat)
    galleries.create("g", model="m", fingerprint=FINGERPRINT, dimension=DIMENSION)
    galleries.put("g", new_items(5), fingerprint=FINGERPRINT)
    return store, galleries


def test_a_write_that_failed_leaves_searches_as_they_were() -> None:
    store, galleries = _fragile()
    store.fails_before = True
    with pytest.raises(OSError, match="before"):
        galleries.put("g", new_items(8), fingerprint=FINGERPRINT)
    assert search(galleries, "g", unit_vectors(1)).searched == 5
    assert galleries.progress() == {"g": (1, 1)}


def test_a_write_that_was_stored_although_it_failed_is_searched() -> None:
    store, galleries = _fragile()
    store.fails_after = True
    with pytest.raises(OSError, match="after"):
        galleries.put("g", new_items(8), fingerprint=FINGERPRINT)
    assert search(galleries, "g", unit_vectors(1)).searched == 8
    assert galleries.progress() == {"g": (2, 2)}


def test_searches_stop_while_nobody_knows_what_the_store_holds_and_the_next_write_mends_it() -> None:
    store, galleries = _fragile()
    store.fails_after = store.fails_always = True
    with pytest.raises(OSError, match="after"):
        galleries.put("g", new_items(8), fingerprint=FINGERPRINT)
    with pytest.raises(NotReady, match="gallery g"):
        search(galleries, "g", unit_vectors(1))
    store.fails_after = store.fails_always = False
    assert galleries.progress() == {"g": (2, -1)}
    galleries.delete_item("g", "item-000")
    assert search(galleries, "g", unit_vectors(1)).searched == 7
    assert galleries.progress() == {"g": (3, 3)}


def test_a_refused_change_changes_nothing(galleries: Galleries) -> None:
    galleries.put("g", new_items(3), fingerprint=FINGERPRINT)
    with pytest.raises(ValueError, match="cannot change vector"):
        galleries.update_item("g", "item-001", {"vector": None})
    with pytest.raises(ValueError, match="cannot change model"):
        galleries.update("g", {"model": "other"})
    with pytest.raises(ItemNotFound):
        galleries.update_item("g", "nobody", {"camera": "c"})
    assert galleries.progress() == {"g": (1, 1)}
    assert galleries.update("g", {"description": "kept"}).description == "kept"


def test_a_time_without_a_zone_is_refused(url: str) -> None:
    galleries = Galleries(SqlStore(url), FaissFlat)
    galleries.create("g", model="m", fingerprint=FINGERPRINT, dimension=DIMENSION)
    naive = Item("i", Modality.VISIBLE, captured_at=datetime(2026, 1, 1))
    with pytest.raises(ValueError, match="time zone"):
        galleries.put("g", [NewItem(naive, unit_vectors(1)[0])], fingerprint=FINGERPRINT)
    with pytest.raises(ValueError, match="time zone"):
        search(galleries, "g", unit_vectors(1), where=Filter(captured_from=datetime(2026, 1, 1)))
    assert galleries.progress() == {"g": (0, 0)}
    galleries.close()


def test_putting_nothing_is_no_change(galleries: Galleries) -> None:
    assert galleries.put("g", [], fingerprint=FINGERPRINT) == []
    assert galleries.progress() == {"g": (0, 0)}
