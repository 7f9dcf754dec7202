"""Searches during writes see no partial write and no deleted item."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event, Thread, Timer

import numpy as np
import pytest

from server.domain.errors import GalleryNotFound, ItemNotFound
from server.domain.types import Filter, NewItem
from server.gallery.galleries import Galleries
from server.gallery.snapshots import SnapshotDirectory
from server.index.exact import ExactIndex
from server.index.protocol import VectorIndex
from server.storage.encryption import encryption_of
from server.storage.protocol import DeleteResult, PutResult, Store
from server.storage.sql_store import SqlStore
from tests.server.gallery.builders import FINGERPRINT, new_item, search, unit_vectors
from tests.server.memory_store import MemoryStore

DIMENSION = 32


@pytest.fixture(autouse=True)
def frequent_thread_switches() -> Iterator[None]:
    """Switch threads a hundred times as often as usual, to provoke race conditions."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(usual / 100)
    yield
    sys.setswitchinterval(usual)


def _galleries(store: Store) -> Galleries:
    galleries = Galleries(store, ExactIndex)
    galleries.catalog.create("g", model="m", fingerprint=FINGERPRINT, dimension=DIMENSION)
    return galleries


def _until(stop: Event, work: Callable[[], object]) -> None:
    while not stop.is_set():
        work()


def _run_with_readers(work: Callable[[], object], readers: list[Callable[[], object]]) -> None:
    """Run ``work`` while each reader runs again and again in a thread; any exception fails the test."""
    stop = Event()
    with ThreadPoolExecutor(len(readers)) as pool:
        running = [pool.submit(_until, stop, reader) for reader in readers]
        try:
            work()
        finally:
            stop.set()
        for one in running:
            one.result()


def test_search_never_finds_deleted_items_and_always_finds_stored_ones(store: Store) -> None:
    """Ids are used once, in batches whose items share a camera, so that a partially visible batch is detected."""
    galleries = _galleries(store)
    vectors = unit_vectors(2000, DIMENSION)
    deleted: set[str] = set()
    stored: set[str] = set()
    batch = 10

    def write() -> None:
        for start in range(0, 200, batch):
            items = [
                new_item(f"i{n}", vectors[n], camera=f"c{start}", identity=f"p{n % 7}")
                for n in range(start, start + batch)
            ]
            galleries.writer.put("g", items, fingerprint=FINGERPRINT)
            stored.update(new.item.id for new in items)
            if start % 40 == 0:
                removed = {f"i{n}" for n in range(start // 2, start // 2 + 5)} - deleted
                stored.difference_update(removed)
                for id in sorted(removed):
                    galleries.erasure.delete_item("g", id)
                deleted.update(removed)
            if start % 100 == 50:
                removed = {f"i{n}" for n in range(start, start + batch)} - deleted
                stored.difference_update(removed)
                galleries.erasure.erase("g", Filter(cameras=frozenset({f"c{start}"})))
                deleted.update(removed)

    def read() -> None:
        removed, there = set(deleted), set(stored)
        result = search(galleries, "g", unit_vectors(1, DIMENSION, seed=5), k=1000, group=True)
        found = {hit.item.id for hit in result.hits}
        assert not found & removed
        assert there & stored <= found
        assert len(found) == len(result.hits) == result.searched
        assert result.groups is not None
        assert sorted(hit.item.id for group in result.groups for hit in group.hits) == sorted(found)
        for hit in result.hits:
            number = int(hit.item.id[1:])
            assert hit.item.camera == f"c{number // batch * batch}"
            assert hit.item.identity == f"p{number % 7}"

    _run_with_readers(write, [read] * 3)
    assert {item.id for item in galleries.query.items("g", Filter(), limit=1000)} == stored
    galleries.close()


def test_search_sees_a_put_completely_or_not_at_all() -> None:
    galleries = _galleries(MemoryStore())
    vectors = unit_vectors(50, DIMENSION)

    def write() -> None:
        for version in range(60):
            items = [new_item(f"i{n}", vectors[n], camera=f"version {version}") for n in range(50)]
            galleries.writer.put("g", items, fingerprint=FINGERPRINT)

    def read() -> None:
        result = search(galleries, "g", vectors[0], k=1000)
        assert result.searched in (0, 50)
        assert len({hit.item.camera for hit in result.hits}) <= 1

    _run_with_readers(write, [read] * 2)


def test_an_item_excluded_while_it_is_replaced_never_appears() -> None:
    galleries = _galleries(MemoryStore())
    vectors = unit_vectors(500, DIMENSION)
    items = [new_item(f"i{n}", vectors[n]) for n in range(500)]
    galleries.writer.put("g", items, fingerprint=FINGERPRINT)

    def write() -> None:
        for _ in range(60):
            galleries.writer.put("g", items, fingerprint=FINGERPRINT)

    def read() -> None:
        result = search(galleries, "g", vectors[0], exclude="i0")
        assert result.searched == 499
        assert "i0" not in {hit.item.id for hit in result.hits}

    _run_with_readers(write, [read] * 2)


def test_concurrent_writers_lose_no_write(any_sql_store: SqlStore) -> None:
    galleries = _galleries(any_sql_store)
    vectors = unit_vectors(96, DIMENSION)

    def write(writer: int) -> None:
        for n in range(writer * 12, writer * 12 + 12):
            galleries.writer.put("g", [new_item(f"i{n}", vectors[n])], fingerprint=FINGERPRINT)
            if n % 3 == 0:
                galleries.erasure.delete_item("g", f"i{n}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    expected = {f"i{n}" for n in range(96) if n % 3}
    assert {item.id for item in galleries.query.items("g", Filter(), limit=1000)} == expected
    assert {hit.item.id for hit in search(galleries, "g", vectors[0], k=1000).hits} == expected
    assert galleries.loader.progress() == {"g": (128, 128)}
    galleries.close()


def test_progress_is_equal_while_a_write_is_between_store_and_memory() -> None:
    committed, go_on = Event(), Event()

    class Paused(MemoryStore):
        def put(
            self, name: str, items: Sequence[NewItem], on_commit: Callable[[PutResult], None] | None = None
        ) -> PutResult:
            done = super().put(name, items)
            committed.set()
            assert go_on.wait(10)
            assert on_commit is not None
            on_commit(done)
            return done

    galleries = Galleries(Paused(), ExactIndex)
    galleries.catalog.create("g", model="m", fingerprint=FINGERPRINT, dimension=DIMENSION)
    items = [new_item("i", unit_vectors(1, DIMENSION)[0])]
    writer = Thread(target=galleries.writer.put, args=("g", items), kwargs={"fingerprint": FINGERPRINT})
    writer.start()
    assert committed.wait(10)
    later = Timer(0.1, go_on.set)
    later.start()
    assert galleries.loader.progress() == {"g": (1, 1)}
    writer.join()
    later.join()


def test_galleries_are_created_and_deleted_during_use() -> None:
    galleries = _galleries(MemoryStore())
    vectors = unit_vectors(3, DIMENSION)

    def come_and_go() -> None:
        for _ in range(150):
            galleries.catalog.delete("g")
            galleries.catalog.create("g", model="m", fingerprint=FINGERPRINT, dimension=DIMENSION)

    def use() -> None:
        try:
            galleries.writer.put("g", [new_item(f"i{n}", vectors[n]) for n in range(3)], fingerprint=FINGERPRINT)
            assert search(galleries, "g", vectors[0]).searched in (0, 2, 3)  # 2: the other user has deleted its i0
            galleries.erasure.delete_item("g", "i0")
        except (GalleryNotFound, ItemNotFound):
            pass

    _run_with_readers(come_and_go, [use] * 2)
    galleries.writer.put("g", [new_item("last", vectors[0])], fingerprint=FINGERPRINT)
    held = {item.id for item in galleries.query.items("g", Filter(), limit=10)}
    assert {hit.item.id for hit in search(galleries, "g", vectors[0]).hits} == held
    assert np.array_equal(*galleries.loader.progress()["g"])


def test_compaction_and_snapshots_during_writes_neither_drop_nor_revive_items(store: Store, tmp_path: Path) -> None:
    galleries = Galleries(store, ExactIndex, SnapshotDirectory(tmp_path / "index", least=1))
    galleries.catalog.create("g", model="m", fingerprint=FINGERPRINT, dimension=DIMENSION)
    vectors = unit_vectors(200, DIMENSION)
    compacted: set[VectorIndex] = set()

    def write() -> None:
        for start in range(0, 200, 10):
            items = [new_item(f"i{n}", vectors[n]) for n in range(start, start + 10)]
            galleries.writer.put("g", items, fingerprint=FINGERPRINT)
            galleries.writer.put("g", items[5:], fingerprint=FINGERPRINT)
            galleries.erasure.delete_item("g", f"i{start}")

    def maintain() -> None:
        opened = galleries.handles.by_name["g"]
        opened.next_snapshot_at = 0
        galleries.maintenance.run()
        compacted.add(opened.ready().view().index)

    maintain()
    _run_with_readers(write, [maintain])
    maintain()
    expected = {f"i{n}" for n in range(200) if n % 10}
    assert len(compacted) > 1
    assert {hit.item.id for hit in search(galleries, "g", vectors[0], k=1000).hits} == expected
    assert galleries.loader.progress() == {"g": (60, 60)}
    if isinstance(store, SqlStore):
        with store.engine.connect() as connection:
            encryption = encryption_of(connection)
        galleries.close()
        store = SqlStore(store.engine.url.render_as_string(hide_password=False), encryption=encryption)
    galleries = Galleries(store, ExactIndex, SnapshotDirectory(tmp_path / "index"))
    assert {hit.item.id for hit in search(galleries, "g", vectors[0], k=1000).hits} == expected
    galleries.close()


def test_a_search_does_not_wait_for_a_writer() -> None:
    inside, go_on = Event(), Event()

    class Slow(MemoryStore):
        def delete_item(
            self, name: str, item: str, on_commit: Callable[[DeleteResult], None] | None = None
        ) -> DeleteResult:
            inside.set()
            assert go_on.wait(10)
            return super().delete_item(name, item, on_commit)

    galleries = Galleries(Slow(), ExactIndex)
    galleries.catalog.create("g", model="m", fingerprint=FINGERPRINT, dimension=DIMENSION)
    galleries.writer.put("g", [new_item("i", unit_vectors(1, DIMENSION)[0])], fingerprint=FINGERPRINT)
    writer = Thread(target=galleries.erasure.delete_item, args=("g", "i"))
    writer.start()
    assert inside.wait(10)
    assert search(galleries, "g", unit_vectors(1, DIMENSION)).searched == 1
    go_on.set()
    writer.join()
    assert search(galleries, "g", unit_vectors(1, DIMENSION)).searched == 0
