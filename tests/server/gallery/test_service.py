"""``Galleries`` as a whole: model binding, refusals, searches, restarts and failures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from threading import Event

import numpy as np
import pytest

from models.card import Modality
from server.domain.errors import GalleryExists, GalleryNotFound, ItemNotFound, ModelMismatch, NotReady
from server.domain.types import Filter, Fusion, Item, NewItem, Vectors, VectorType
from server.gallery.galleries import Galleries
from server.index.exact import ExactIndex
from server.index.protocol import BruteForceIndex, FilterIgnored
from server.storage.protocol import LoadedGallery, PutResult, Store
from server.storage.sql_store import SqlStore
from server.storage.startup_errors import DatabaseDamaged
from tests.server.gallery.builders import (
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
from tests.server.index.test_protocol import IgnoresItsMask
from tests.server.memory_store import MemoryStore


@pytest.fixture
def galleries(store: Store) -> Galleries:
    """All galleries of each kind of store, with an empty gallery ``g``."""
    created = Galleries(store, ExactIndex)
    created.catalog.create("g", model="m", fingerprint=FINGERPRINT, dimension=DIMENSION)
    return created


def test_a_gallery_is_listed_as_created_and_counts_its_items(galleries: Galleries) -> None:
    before = datetime.now(UTC)
    created = galleries.catalog.create(
        "h", model="m", fingerprint=FINGERPRINT, dimension=4, retention_days=30, description="Door"
    )
    assert before - timedelta(seconds=1) < created.created_at <= datetime.now(UTC)
    assert (created.items, created.retention_days, created.description, created.dimension) == (0, 30, "Door", 4)
    galleries.writer.put("g", new_items(3), fingerprint=FINGERPRINT)
    assert galleries.catalog.get("h") == created
    assert galleries.catalog.get("g").items == 3
    assert galleries.catalog.cached("g").fingerprint == FINGERPRINT
    assert [one.name for one in galleries.catalog.list(limit=10)] == ["g", "h"]
    assert [one.name for one in galleries.catalog.list(limit=1, after="g")] == ["h"]
    with pytest.raises(GalleryExists):
        galleries.catalog.create("h", model="m", fingerprint=FINGERPRINT, dimension=4)


def test_a_deleted_gallery_is_not_found_and_its_name_is_free(galleries: Galleries) -> None:
    galleries.writer.put("g", new_items(3), fingerprint=FINGERPRINT)
    galleries.catalog.delete("g")
    for call in (
        lambda: galleries.catalog.get("g"),
        lambda: galleries.catalog.cached("g"),
        lambda: search(galleries, "g", unit_vectors(1)),
        lambda: galleries.writer.put("g", new_items(1), fingerprint=FINGERPRINT),
        lambda: galleries.catalog.delete("g"),
        lambda: galleries.erasure.delete_item("g", "item-000"),
    ):
        with pytest.raises(GalleryNotFound):
            call()
    assert galleries.loader.progress() == {}
    galleries.catalog.create("g", model="other", fingerprint="e" * 64, dimension=3)
    assert galleries.writer.put("g", [new_item("i", unit_vectors(1, 3)[0])], fingerprint="e" * 64) == ["added"]


@pytest.mark.parametrize("build", [ExactIndex, BruteForceIndex])
@pytest.mark.parametrize("fusion", Fusion)
@pytest.mark.parametrize("queries", [1, 4])
def test_a_search_equals_plain_loops(build: type[ExactIndex], fusion: Fusion, queries: int) -> None:
    galleries = Galleries(MemoryStore(), build)
    galleries.catalog.create("g", model="m", fingerprint=FINGERPRINT, dimension=DIMENSION)
    items = new_items(60, vectors=tied_vectors(60, kinds=25))
    galleries.writer.put("g", items, fingerprint=FINGERPRINT)
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
    galleries.writer.put("g", items, fingerprint=FINGERPRINT)
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
    galleries.writer.put("g", items, fingerprint=FINGERPRINT)
    _, vector = galleries.query.vector("g", "item-004")
    everything = search(galleries, "g", vector)
    others = search(galleries, "g", vector, exclude="item-004")
    assert found(others) == found(everything)[1:]
    assert (everything.searched, others.searched) == (9, 8)
    assert found(search(galleries, "g", vector, exclude="not there")) == found(everything)


def test_searching_an_empty_or_fully_filtered_gallery_finds_nothing(galleries: Galleries) -> None:
    for group in (False, True):
        result = search(galleries, "g", unit_vectors(1), group=group)
        assert (result.hits, result.searched, result.groups) == ((), 0, () if group else None)
    galleries.writer.put("g", new_items(5), fingerprint=FINGERPRINT)
    assert search(galleries, "g", unit_vectors(1), where=Filter(cameras=frozenset({"c99"}))).hits == ()
    assert search(galleries, "g", unit_vectors(1), min_score=1.5, group=True).groups == ()


def test_another_model_is_refused_for_writing_and_searching(galleries: Galleries) -> None:
    other = "e" * 64
    for call in (
        lambda: galleries.writer.put("g", new_items(1), fingerprint=other),
        lambda: search(galleries, "g", unit_vectors(1), fingerprint=other),
    ):
        with pytest.raises(ModelMismatch) as raised:
            call()
        assert (raised.value.gallery, raised.value.expected, raised.value.found) == ("g", FINGERPRINT, other)


def test_another_dimension_is_refused_for_writing_and_searching(galleries: Galleries) -> None:
    short = unit_vectors(1, 5)
    for call in (
        lambda: galleries.writer.put("g", [*new_items(2), new_item("x", short[0])], fingerprint=FINGERPRINT),
        lambda: search(galleries, "g", short),
    ):
        with pytest.raises(ModelMismatch) as raised:
            call()
        assert (raised.value.expected, raised.value.found) == ("dimension 8", "dimension 5")
    assert galleries.catalog.get("g").items == 0


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
        galleries.writer.put("g", items, fingerprint=FINGERPRINT)
    with pytest.raises(ValueError, match=f"vector 0 has norm {norm}"):
        search(galleries, "g", items[2].vector)
    assert galleries.catalog.get("g").items == 0


def test_a_vector_within_the_tolerance_is_accepted(galleries: Galleries) -> None:
    for factor in (0.9991, 1.0009):
        galleries.writer.put("g", [new_item("i", unit_vectors(1)[0] * np.float32(factor))], fingerprint=FINGERPRINT)


@pytest.mark.parametrize("k", [0, -1])
def test_k_below_one_is_refused(galleries: Galleries, k: int) -> None:
    with pytest.raises(ValueError, match=f"found {k}"):
        search(galleries, "g", unit_vectors(1), k=k)


def test_a_search_needs_a_query(galleries: Galleries) -> None:
    with pytest.raises(ValueError, match="at least one query"):
        search(galleries, "g", unit_vectors(0))


def test_filters_use_changed_metadata_at_once(galleries: Galleries) -> None:
    galleries.writer.put("g", new_items(6), fingerprint=FINGERPRINT)
    where = Filter(
        cameras=frozenset({"new"}), identities=frozenset({"named"}), captured_from=START, attributes={"seen": True}
    )
    assert search(galleries, "g", unit_vectors(1), where=where).searched == 0
    item = galleries.writer.update_item(
        "g", "item-003", {"camera": "new", "identity": "named", "captured_at": START, "attributes": {"seen": True}}
    )
    result = search(galleries, "g", unit_vectors(1), where=where)
    assert [hit.item for hit in result.hits] == [item] == galleries.query.items("g", where, limit=5)


def test_a_replaced_item_is_found_only_by_its_new_vector(galleries: Galleries) -> None:
    old, new = unit_vectors(2)
    galleries.writer.put("g", [new_item("i", old)], fingerprint=FINGERPRINT)
    assert galleries.writer.put("g", [new_item("i", new)], fingerprint=FINGERPRINT) == ["updated"]
    result = search(galleries, "g", old)
    assert (result.searched, len(result.hits)) == (1, 1)
    assert result.hits[0].score < 0.99
    assert search(galleries, "g", new).hits[0].score == pytest.approx(1)


def test_memory_is_compacted_when_more_than_a_fifth_is_dead(galleries: Galleries) -> None:
    items = new_items(100)
    galleries.writer.put("g", items, fingerprint=FINGERPRINT)
    for new in items[:20]:
        galleries.erasure.delete_item("g", new.item.id)
    galleries.maintenance.run()
    assert _rows(galleries) == 100
    galleries.erasure.delete_item("g", items[20].item.id)
    galleries.maintenance.run()
    assert _rows(galleries) == 79
    query = unit_vectors(1, seed=3)
    assert found(search(galleries, "g", query, k=100)) == expected_hits(items[21:], query)
    galleries.erasure.delete_item("g", items[21].item.id)
    assert found(search(galleries, "g", query, k=100)) == expected_hits(items[22:], query)
    assert galleries.loader.progress() == {"g": (23, 23)}


def _rows(galleries: Galleries) -> int:
    """Return the number of rows of gallery ``g`` in memory, including dead rows."""
    return len(galleries.handles.by_name["g"].ready().view().alive)


def test_a_float16_gallery_is_searched_with_its_rounded_vectors(galleries: Galleries) -> None:
    galleries.catalog.create(
        "h", model="m", fingerprint=FINGERPRINT, dimension=DIMENSION, vector_type=VectorType.FLOAT16
    )
    assert galleries.catalog.get("h").vector_type is VectorType.FLOAT16
    items = new_items(60)
    galleries.writer.put("h", items, fingerprint=FINGERPRINT)
    rounded = [replace(new, vector=new.vector.astype(np.float16).astype(np.float32)) for new in items]
    query = unit_vectors(1, seed=4)
    assert found(search(galleries, "h", query, k=60)) == expected_hits(rounded, query)
    assert found(search(galleries, "h", query, k=60)) != expected_hits(items, query)
    assert galleries.query.vector("h", "item-007")[1].tobytes() == rounded[7].vector.tobytes()


def test_a_gallery_without_thumbnails_drops_them(galleries: Galleries) -> None:
    galleries.catalog.create("h", model="m", fingerprint=FINGERPRINT, dimension=DIMENSION, thumbnails=False)
    galleries.writer.put("h", [new_item("i", unit_vectors(1)[0], thumbnail=b"image")], fingerprint=FINGERPRINT)
    with pytest.raises(ItemNotFound):
        galleries.query.thumbnail("h", "i")


def test_an_alias_resolves_to_its_gallery_until_it_is_moved_or_removed(store: Store, galleries: Galleries) -> None:
    galleries.catalog.create("h", model="m", fingerprint=FINGERPRINT, dimension=DIMENSION)
    galleries.catalog.set_alias("latest", "g")
    assert (galleries.catalog.resolve("latest"), galleries.catalog.resolve("h")) == ("g", "h")
    galleries.catalog.set_alias("latest", "h")
    galleries.catalog.set_alias("old", "g")
    assert galleries.catalog.aliases() == {"latest": "h", "old": "g"}
    assert Galleries(store, ExactIndex).catalog.resolve("latest") == "h"
    galleries.catalog.delete("h")
    galleries.catalog.remove_alias("old")
    assert galleries.catalog.aliases() == {}
    assert [galleries.catalog.resolve(name) for name in ("latest", "old", "g")] == ["latest", "old", "g"]


class BlockingStore(MemoryStore):
    """A store whose ``load`` of gallery ``large`` and ``check`` block until their events are set."""

    def __init__(self) -> None:
        super().__init__()
        self.started, self.check_may_end, self.load_may_end = Event(), Event(), Event()

    def load(self, name: str, since: int = 0) -> AbstractContextManager[LoadedGallery]:  # type: ignore[override]  # what the protocol says
        if name == "large":
            self.started.set()
            assert self.load_may_end.wait(10)
        return super().load(name, since)

    def check(self) -> None:
        assert self.check_may_end.wait(10)


def _blocking_store() -> BlockingStore:
    store = BlockingStore()
    store.check_may_end.set()
    galleries = Galleries(store, ExactIndex)
    for name, count in (("large", 9), ("small", 2)):
        galleries.catalog.create(name, model="m", fingerprint=FINGERPRINT, dimension=DIMENSION)
        galleries.writer.put(name, new_items(count), fingerprint=FINGERPRINT)
    store.check_may_end.clear()
    return store


def test_nothing_is_served_before_background_loading_and_checking_end() -> None:
    store = _blocking_store()
    galleries = Galleries(store, ExactIndex, in_background=True)
    assert store.started.wait(10)
    assert galleries.loader.unloaded() == {"large": (0, 9)}
    for call in (
        lambda: search(galleries, "large", unit_vectors(1)),
        lambda: search(galleries, "small", unit_vectors(1)),
        lambda: galleries.query.item("small", "item-000"),
        lambda: galleries.query.items("small", Filter(), limit=1),
        lambda: galleries.writer.put("small", new_items(1), fingerprint=FINGERPRINT),
        lambda: galleries.erasure.erase("large", Filter()),
        lambda: galleries.catalog.delete("small"),
        lambda: galleries.catalog.list(limit=1),
        lambda: galleries.erasure.expire(START),
    ):
        with pytest.raises(NotReady):
            call()
    with pytest.raises(GalleryNotFound):
        galleries.catalog.get("nothing")
    assert galleries.loader.progress() == {"large": (1, -1), "small": (1, 1)}
    store.load_may_end.set()
    store.check_may_end.set()
    galleries.loader.loading.result(10)
    assert galleries.loader.unloaded() == {}
    assert search(galleries, "large", unit_vectors(1)).searched == 9
    assert galleries.loader.progress() == {"large": (1, 1), "small": (1, 1)}


@pytest.mark.parametrize("in_background", [False, True])
@pytest.mark.parametrize("method", ["check", "load"])
def test_a_damaged_store_is_not_served(monkeypatch: pytest.MonkeyPatch, method: str, in_background: bool) -> None:
    store = _blocking_store()
    store.load_may_end.set()
    store.check_may_end.set()

    def fail(*_args: object) -> None:
        raise DatabaseDamaged("file", "it is broken")

    monkeypatch.setattr(store, method, fail)
    with pytest.raises(DatabaseDamaged, match="it is broken"):
        Galleries(store, ExactIndex, in_background=in_background).loader.loading.result(10)


def test_a_restart_keeps_everything(url: str) -> None:
    store = SqlStore(url)
    galleries = Galleries(store, ExactIndex)
    for name in ("g", "h"):
        galleries.catalog.create(name, model="m", fingerprint=FINGERPRINT, dimension=DIMENSION)
    items = new_items(50)
    galleries.writer.put("g", items, fingerprint=FINGERPRINT)
    galleries.writer.put("h", items[:5], fingerprint=FINGERPRINT)
    galleries.erasure.erase("g", Filter(cameras=frozenset({"c1"})))
    remaining = [new for new in items if new.item.camera != "c1"]
    galleries.close()

    galleries = Galleries(SqlStore(url), ExactIndex)
    query = unit_vectors(2, seed=8)
    assert found(search(galleries, "g", query, k=100)) == expected_hits(remaining, query)
    assert galleries.loader.progress() == {"g": (2, 2), "h": (1, 1)}
    thumbnail = next(new for new in remaining if new.thumbnail)
    assert galleries.query.thumbnail("g", thumbnail.item.id) == thumbnail.thumbnail
    galleries.close()


def test_an_index_that_ignores_its_mask_is_refused_at_the_start() -> None:
    with pytest.raises(FilterIgnored):
        Galleries(MemoryStore(), IgnoresItsMask)


class FailingStore(MemoryStore):
    """A store that fails on demand: before a write, after it, or when sequence numbers are read."""

    fails_before = fails_after = fails_always = False

    def put(
        self, name: str, items: Sequence[NewItem], on_commit: Callable[[PutResult], None] | None = None
    ) -> PutResult:
        if self.fails_before:
            raise OSError("before")
        done = super().put(name, items, None if self.fails_after else on_commit)
        if self.fails_after:
            raise OSError("after")
        return done

    def settled_sequence(self, name: str) -> int:
        if self.fails_always:
            raise OSError("always")
        return super().settled_sequence(name)


def _failing_store() -> tuple[FailingStore, Galleries]:
    store = FailingStore()
    galleries = Galleries(store, ExactIndex)
    galleries.catalog.create("g", model="m", fingerprint=FINGERPRINT, dimension=DIMENSION)
    galleries.writer.put("g", new_items(5), fingerprint=FINGERPRINT)
    return store, galleries


def test_a_failed_write_does_not_change_searches() -> None:
    store, galleries = _failing_store()
    store.fails_before = True
    with pytest.raises(OSError, match="before"):
        galleries.writer.put("g", new_items(8), fingerprint=FINGERPRINT)
    assert search(galleries, "g", unit_vectors(1)).searched == 5
    assert galleries.loader.progress() == {"g": (1, 1)}


def test_a_write_stored_despite_an_error_is_searched() -> None:
    store, galleries = _failing_store()
    store.fails_after = True
    with pytest.raises(OSError, match="after"):
        galleries.writer.put("g", new_items(8), fingerprint=FINGERPRINT)
    assert search(galleries, "g", unit_vectors(1)).searched == 8
    assert galleries.loader.progress() == {"g": (2, 2)}


def test_searches_stop_while_the_state_of_the_store_is_unknown_and_the_next_write_repairs_it() -> None:
    store, galleries = _failing_store()
    store.fails_after = store.fails_always = True
    with pytest.raises(OSError, match="after"):
        galleries.writer.put("g", new_items(8), fingerprint=FINGERPRINT)
    with pytest.raises(NotReady, match="gallery g"):
        search(galleries, "g", unit_vectors(1))
    assert galleries.loader.progress() == {"g": (2, -1)}
    store.fails_after = store.fails_always = False
    galleries.erasure.delete_item("g", "item-000")
    assert search(galleries, "g", unit_vectors(1)).searched == 7
    assert galleries.loader.progress() == {"g": (3, 3)}


def test_a_refused_change_changes_nothing(galleries: Galleries) -> None:
    galleries.writer.put("g", new_items(3), fingerprint=FINGERPRINT)
    with pytest.raises(ValueError, match="cannot change vector"):
        galleries.writer.update_item("g", "item-001", {"vector": None})
    with pytest.raises(ValueError, match="cannot change model"):
        galleries.catalog.update("g", {"model": "other"})
    with pytest.raises(ItemNotFound):
        galleries.writer.update_item("g", "nobody", {"camera": "c"})
    assert galleries.loader.progress() == {"g": (1, 1)}
    assert galleries.catalog.update("g", {"description": "kept"}).description == "kept"


def test_a_time_without_a_zone_is_refused(url: str) -> None:
    galleries = Galleries(SqlStore(url), ExactIndex)
    galleries.catalog.create("g", model="m", fingerprint=FINGERPRINT, dimension=DIMENSION)
    naive = Item("i", Modality.VISIBLE, captured_at=datetime(2026, 1, 1))
    with pytest.raises(ValueError, match="time zone"):
        galleries.writer.put("g", [NewItem(naive, unit_vectors(1)[0])], fingerprint=FINGERPRINT)
    with pytest.raises(ValueError, match="time zone"):
        search(galleries, "g", unit_vectors(1), where=Filter(captured_from=datetime(2026, 1, 1)))
    assert galleries.loader.progress() == {"g": (0, 0)}
    galleries.close()


def test_putting_no_items_does_not_raise_the_sequence(galleries: Galleries) -> None:
    assert galleries.writer.put("g", [], fingerprint=FINGERPRINT) == []
    assert galleries.loader.progress() == {"g": (0, 0)}
