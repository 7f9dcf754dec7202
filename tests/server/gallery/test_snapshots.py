"""Snapshots restore the gallery, damage is detected, and no deleted data stays on disk."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.domain.types import Filter, Gallery, Item, NewItem, VectorType
from server.gallery import snapshots
from server.gallery.columns import GalleryView
from server.gallery.galleries import Galleries
from server.gallery.live_gallery import LiveGallery
from server.gallery.snapshots import Snapshot, SnapshotDirectory
from server.index.exact import ExactIndex
from server.storage import files
from tests.server.gallery import builders
from tests.server.gallery.builders import DIMENSION, FINGERPRINT, START, expected_hits, found, new_items, search
from tests.server.memory_store import MemoryStore

P2 = Filter(identities=frozenset({"p2"}))
PART = 5
"""Rows per vector file in these tests, so that few items need several files."""


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "_ROWS", PART)
    monkeypatch.setattr(snapshots, "_CHUNK", 2)


def _gallery(vector_type: VectorType = VectorType.FLOAT32, **changes: Any) -> Gallery:
    usual: dict[str, Any] = {"name": "g", "fingerprint": FINGERPRINT, "dimension": DIMENSION, "created_at": START}
    return Gallery(model="m", items=0, vector_type=vector_type, **{**usual, **changes})


def _build(gallery: Gallery) -> Callable[[], ExactIndex]:
    return partial(ExactIndex, gallery.dimension, gallery.vector_type)


def _put(live: LiveGallery, items: Sequence[NewItem]) -> None:
    """Put items; their store rows count from a thousand times the sequence number."""
    sequence = live.sequence + 1
    vectors = np.stack([new.vector for new in items])
    live.put([new.item for new in items], np.arange(len(items)) + 1000 * sequence, vectors, sequence)


def _delete(live: LiveGallery, ids: Sequence[str]) -> None:
    live.delete(ids, live.sequence + 1)


def _contents(view: GalleryView) -> list[tuple[Item, int, bytes]]:
    rows = np.flatnonzero(view.alive)
    vectors = view.index.vectors(rows)
    return [
        (view.item(row), int(view.row[row]), one.tobytes()) for row, one in zip(rows.tolist(), vectors, strict=True)
    ]


def _filled(gallery: Gallery, count: int = 12) -> LiveGallery:
    live = LiveGallery(_build(gallery)())
    _put(live, new_items(count))
    return live


def _read(folder: Path, gallery: Gallery) -> LiveGallery | None:
    return Snapshot(folder, gallery).read(_build(gallery), lambda _rows: None)


def _bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("vector_type", VectorType)
@pytest.mark.parametrize("count", [1, PART, 12])
def test_a_snapshot_restores_the_gallery(tmp_path: Path, vector_type: VectorType, count: int) -> None:
    gallery = _gallery(vector_type)
    live = _filled(gallery, count)
    Snapshot(tmp_path / "s", gallery).write(live.view)
    row_counts: list[int] = []
    back = Snapshot(tmp_path / "s", gallery).read(_build(gallery), row_counts.append)
    assert back is not None
    assert (_contents(back.view()), back.sequence) == (_contents(live.view()), 1)
    assert sum(row_counts) == count
    _put(back, new_items(3, seed=5, prefix="more"))
    _put(live, new_items(3, seed=5, prefix="more"))
    assert _contents(back.view()) == _contents(live.view())


steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.lists(builders.items_strategy, min_size=1, max_size=6)),
        st.tuples(st.just("delete"), st.frozensets(builders.ids, min_size=1, max_size=3)),
        st.tuples(st.sampled_from(["write", "restart", "compact"]), st.none()),
    ),
    min_size=3,
    max_size=15,
)


@settings(max_examples=40)
@given(steps=steps, vector_type=st.sampled_from(VectorType))
def test_snapshots_are_correct_and_free_of_deleted_data_after_any_history(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, Any]], vector_type: VectorType
) -> None:
    """All vectors differ, so that the bytes of a deleted one can be searched in the files."""
    folder, gallery = tmp_path_factory.mktemp("snapshot") / "s", _gallery(vector_type)
    live, snapshot = LiveGallery(_build(gallery)()), Snapshot(folder, gallery)
    vectors: dict[str, bytes] = {}  # of existing items
    removed: set[bytes] = set()
    for seed, (action, what) in enumerate(steps):
        if action == "put":
            new = [
                NewItem(item, vector) for item, vector in zip(what, builders.unit_vectors(6, seed=seed), strict=False)
            ]
            _put(live, new)
            for one in new:
                removed |= {vectors.get(one.item.id, b"")} - {b""}
                vectors[one.item.id] = one.vector.astype(vector_type.dtype).tobytes()
        elif action == "delete":
            deleted = sorted(what & vectors.keys())
            _delete(live, deleted)
            snapshot.erase(live.view())
            removed |= {vectors.pop(id) for id in deleted}
            if deleted and folder.exists():
                everything = b"".join(_bytes(folder).values())
                assert not [vector for vector in removed if vector in everything]
        elif action == "compact":
            live = live.compacted(_build(gallery))
        elif action == "write":
            snapshot.write(live.view)
            read = _read(folder, gallery)
            assert read is not None
            assert (_contents(read.view()), read.sequence) == (_contents(live.view()), live.sequence)
        else:
            snapshot = Snapshot(folder, gallery)
            back = snapshot.read(_build(gallery), lambda _rows: None)
            if back is not None and back.sequence == live.sequence:
                assert _contents(back.view()) == _contents(live.view())
                live = back


def test_a_replaced_vector_seen_as_dead_at_a_restart_is_erased_by_the_next_deletion(tmp_path: Path) -> None:
    gallery = _gallery()
    live, snapshot = _filled(gallery), Snapshot(tmp_path / "s", gallery)
    snapshot.write(live.view)
    _put(live, new_items(1, seed=8))
    snapshot.write(live.view)
    old = new_items(1)[0].vector.tobytes()
    assert old in b"".join(_bytes(tmp_path / "s").values())
    snapshot = Snapshot(tmp_path / "s", gallery)
    back = snapshot.read(_build(gallery), lambda _rows: None)
    assert back is not None
    _delete(back, ["item-000"])
    snapshot.erase(back.view())
    assert old not in b"".join(_bytes(tmp_path / "s").values())


def test_a_deletion_during_a_snapshot_also_erases_the_previous_snapshot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery = _gallery()
    live, snapshot = _filled(gallery, 12), Snapshot(tmp_path / "s", gallery)
    snapshot.write(live.view)
    _put(live, new_items(1, prefix="more"))
    deleted = new_items(12)[11].vector.tobytes()
    calls = iter(range(100))

    def now() -> GalleryView:
        if next(calls) == 3:  # the item is deleted before the last file, which grows, is written
            _delete(live, ["item-011"])
        return live.view()

    with monkeypatch.context() as patch:
        patch.setattr(Snapshot, "_finish", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            snapshot.write(now)
    assert deleted in b"".join(_bytes(tmp_path / "s").values())
    snapshot.erase(live.view())
    assert deleted not in b"".join(_bytes(tmp_path / "s").values())
    assert b"item-011" not in b"".join(_bytes(tmp_path / "s").values())


def test_a_second_snapshot_writes_only_what_is_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery = _gallery()
    live, snapshot = _filled(gallery, 12), Snapshot(tmp_path / "s", gallery)
    snapshot.write(live.view)
    written: list[str] = []
    write = snapshots.write_durably

    def record(path: Path, blocks: Iterable[bytes | memoryview]) -> str:
        written.append(path.name)
        return write(path, blocks)

    for module in (snapshots, files):
        monkeypatch.setattr(module, "write_durably", record)
    snapshot.write(live.view)
    assert written == []
    _put(live, new_items(1, seed=3, prefix="more"))
    snapshot.write(live.view)
    assert sorted(written) == ["facts-2", "manifest.json.new", "vectors-00002-3"]
    assert sorted(_bytes(tmp_path / "s")) == [
        "facts-2",
        "manifest.json",
        "vectors-00000-5",
        "vectors-00001-5",
        "vectors-00002-3",
    ]
    assert _read(tmp_path / "s", gallery) is not None


def test_missing_share_measures_what_a_snapshot_lacks(tmp_path: Path) -> None:
    gallery = _gallery()
    live, snapshot = _filled(gallery, 8), Snapshot(tmp_path / "s", gallery)
    assert snapshot.missing_share(live.view()) == 1
    snapshot.write(live.view)
    assert snapshot.missing_share(live.view()) == 0
    _put(live, new_items(2, prefix="more"))
    assert snapshot.missing_share(live.view()) == pytest.approx(2 / 10)
    for _ in range(3):
        live.update(new_items(1)[0].item, live.sequence + 1)
    assert snapshot.missing_share(live.view()) == pytest.approx(4 / 10)
    assert snapshot.missing_share(live.compacted(_build(gallery)).view()) == 1


def _flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def _forge(folder: Path, **changes: object) -> None:
    """Change the manifest and update its checksum."""
    text, _ = (folder / "manifest.json").read_text().splitlines()
    (folder / "manifest.json").write_text(snapshots._sealed(json.dumps(json.loads(text) | changes)))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a bit of a vector": lambda folder: _flip(folder / "vectors-00001-5", 40),
    "a bit of the details": lambda folder: _flip(folder / "facts-1", 900),
    "a bit of the manifest": lambda folder: _flip(folder / "manifest.json", 40),
    "no vectors": lambda folder: (folder / "vectors-00002-2").unlink(),
    "no details": lambda folder: (folder / "facts-1").unlink(),
    "no manifest": lambda folder: (folder / "manifest.json").unlink(),
    "empty manifest": lambda folder: (folder / "manifest.json").write_bytes(b""),
    "short vectors": lambda folder: os.truncate(folder / "vectors-00000-5", 100),
    "vectors changed places": lambda folder: (folder / "vectors-00000-5").rename(folder / "vectors-00001-5"),
    "another format": lambda folder: _forge(folder, format=3),
    "fewer files": lambda folder: _forge(folder, vectors=[]),
    "another count": lambda folder: _forge(folder, count=11),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_snapshot_is_not_used_and_written_again(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    gallery = _gallery()
    live = _filled(gallery)
    Snapshot(tmp_path / "s", gallery).write(live.view)
    DAMAGES[damage](tmp_path / "s")
    snapshot = Snapshot(tmp_path / "s", gallery)
    assert snapshot.read(_build(gallery), lambda _rows: None) is None
    assert "its snapshot is not used" in caplog.text
    snapshot.write(live.view)
    read = _read(tmp_path / "s", gallery)
    assert read is not None
    assert _contents(read.view()) == _contents(live.view())


@pytest.mark.parametrize(
    "changes",
    [
        {"fingerprint": "e" * 64},
        {"dimension": 4},
        {"vector_type": VectorType.FLOAT16},
        {"name": "h"},
        {"created_at": START.replace(year=2025)},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_the_snapshot_of_another_gallery_is_not_used(tmp_path: Path, changes: dict[str, Any]) -> None:
    Snapshot(tmp_path / "s", _gallery()).write(_filled(_gallery()).view)
    assert _read(tmp_path / "s", _gallery(**changes)) is None


@pytest.mark.parametrize("fail_at", range(8))
def test_an_unfinished_snapshot_keeps_the_previous_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fail_at: int
) -> None:
    gallery = _gallery()
    live, snapshot = _filled(gallery), Snapshot(tmp_path / "s", gallery)
    snapshot.write(live.view)
    before = _contents(live.view())
    _put(live, new_items(9, seed=2, prefix="more"))
    calls, fsync = iter(range(100)), os.fsync

    def fail(file: int) -> None:
        if next(calls) >= fail_at:
            raise OSError(errno.ENOSPC, "no room")
        fsync(file)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="no room"):
            snapshot.write(live.view)
    read = _read(tmp_path / "s", gallery)
    assert read is not None
    assert _contents(read.view()) in (before, _contents(live.view()))
    snapshot.write(live.view)
    read = _read(tmp_path / "s", gallery)
    assert read is not None
    assert _contents(read.view()) == _contents(live.view())


def test_snapshot_files_are_overwritten_before_they_are_removed(tmp_path: Path) -> None:
    """A hard link keeps the bytes readable after the file is removed."""
    gallery = _gallery()
    live, snapshot = _filled(gallery), Snapshot(tmp_path / "s", gallery)
    snapshot.write(live.view)
    details, tail = tmp_path / "facts", tmp_path / "tail"
    details.hardlink_to(tmp_path / "s" / "facts-1")
    tail.hardlink_to(tmp_path / "s" / "vectors-00002-2")
    _delete(live, ["item-000"])
    snapshot.erase(live.view())
    assert not details.read_bytes().strip(b"\0")
    snapshot.destroy()
    assert not tail.read_bytes().strip(b"\0")
    assert not (tmp_path / "s").exists()


def test_erase_without_a_view_removes_everything(tmp_path: Path) -> None:
    gallery = _gallery()
    live, snapshot = _filled(gallery), Snapshot(tmp_path / "s", gallery)
    snapshot.write(live.view)
    snapshot.erase(None)
    assert _bytes(tmp_path / "s") == {}
    snapshot.write(live.view)
    assert _read(tmp_path / "s", gallery) is not None


# The galleries over them


@pytest.fixture
def reopen(tmp_path: Path) -> Callable[[], Galleries]:
    """Return a function that opens galleries with the same store and snapshots, as after a crash or a restart."""
    store = MemoryStore()
    return lambda: Galleries(store, ExactIndex, SnapshotDirectory(tmp_path / "index", least=3))


@pytest.fixture
def galleries(reopen: Callable[[], Galleries]) -> Galleries:
    made = reopen()
    made.catalog.create("g", model="m", fingerprint=FINGERPRINT, dimension=DIMENSION)
    made.writer.put("g", new_items(20), fingerprint=FINGERPRINT)
    return made


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sequence numbers from which items were loaded from the store."""
    since: list[int] = []
    load = MemoryStore.load
    monkeypatch.setattr(
        MemoryStore, "load", lambda store, name, number=0: (since.append(number), load(store, name, number))[1]
    )
    return since


def _folders(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "index").iterdir()) if (tmp_path / "index").exists() else []


def _hits(galleries: Galleries) -> list[tuple[str, float]]:
    return found(search(galleries, "g", builders.unit_vectors(1, seed=77), k=100))


def _expected(items: Sequence[NewItem]) -> list[tuple[str, float]]:
    return expected_hits(items, builders.unit_vectors(1, seed=77))


def test_a_restart_loads_only_what_the_snapshot_lacks(
    galleries: Galleries, reopen: Callable[[], Galleries], loads: list[int]
) -> None:
    galleries.close()
    again = reopen()
    assert loads == [1]
    more = new_items(4, seed=1, prefix="more")
    again.writer.put("g", more, fingerprint=FINGERPRINT)
    again.writer.put("g", new_items(2, seed=9), fingerprint=FINGERPRINT)
    again.writer.update_item("g", "item-007", {"camera": "moved"})
    crashed = reopen()
    assert loads == [1, 1]
    items = new_items(2, seed=9) + new_items(20)[2:] + more
    assert _hits(crashed) == _expected(items)
    assert search(crashed, "g", items[0].vector, where=Filter(cameras=frozenset({"moved"}))).searched == 1
    assert crashed.loader.progress() == {"g": (4, 4)}
    crashed.close()
    reopen()
    assert loads == [1, 1, 4]


def test_items_deleted_without_the_snapshot_are_erased_from_it_at_the_next_start(
    galleries: Galleries, reopen: Callable[[], Galleries], tmp_path: Path
) -> None:
    """Simulates a crash between the commit and the erasure."""
    galleries.close()
    (folder,) = _folders(tmp_path)
    vector = new_items(20)[3].vector.tobytes()
    assert vector in b"".join(_bytes(folder).values())
    galleries._store.delete_item("g", "item-003")
    again = reopen()
    assert vector not in b"".join(_bytes(folder).values())
    assert b"item-003" not in b"".join(_bytes(folder).values())
    assert _hits(again) == _expected([new for new in new_items(20) if new.item.id != "item-003"])


def test_a_store_restored_to_an_earlier_state_takes_precedence(
    galleries: Galleries, reopen: Callable[[], Galleries], loads: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    galleries.writer.put("g", new_items(5, seed=4, prefix="more"), fingerprint=FINGERPRINT)
    galleries.close()
    held = galleries._store._held["g"]  # type: ignore[attr-defined]
    held.sequence = 1
    held.items = {id: row for id, row in held.items.items() if not id.startswith("more")}
    assert _hits(reopen()) == _expected(new_items(20))
    assert loads == [2, 0]
    assert "it has seen change 2, the store has 1" in caplog.text


def test_the_store_takes_precedence_over_a_snapshot_that_lacks_items(
    galleries: Galleries, reopen: Callable[[], Galleries], loads: list[int]
) -> None:
    galleries.close()
    held = galleries._store._held["g"]  # type: ignore[attr-defined]
    held.items["item-002"].row = 99
    assert _hits(reopen()) == _expected(new_items(20))
    assert loads == [1, 0]


@pytest.mark.parametrize("delete", ["item", "filter", "expiry", "gallery"])
def test_no_file_holds_an_item_after_its_deletion_returns(
    galleries: Galleries, reopen: Callable[[], Galleries], tmp_path: Path, delete: str
) -> None:
    galleries.close()
    again = reopen()
    (folder,) = _folders(tmp_path)
    new = new_items(20)[8]
    assert new.vector.tobytes() in b"".join(_bytes(folder).values())
    again.writer.put("g", new_items(9, seed=6)[8:], fingerprint=FINGERPRINT)  # the older vector must go, too
    if delete == "item":
        again.erasure.delete_item("g", new.item.id)
    elif delete == "filter":
        again.erasure.erase("g", P2)
    elif delete == "expiry":
        again.catalog.update("g", {"retention_days": 1})
        again.erasure.expire(START.replace(year=9000))
    else:
        again.catalog.delete("g")
        assert _folders(tmp_path) == []
        return
    everything = b"".join(_bytes(folder).values())
    assert new.vector.tobytes() not in everything
    assert new.item.id.encode() not in everything
    assert not (folder / "manifest.json").exists()
    again.close()
    assert (folder / "manifest.json").exists()
    assert b"item-008" not in b"".join(_bytes(folder).values())
    assert _hits(reopen()) == _hits(again)


def test_snapshots_are_written_after_many_changes_and_not_too_often(galleries: Galleries, tmp_path: Path) -> None:
    opened = galleries.handles.by_name["g"]
    assert opened.snapshot is not None
    galleries.maintenance.run()
    assert opened.snapshot.sequence == 1
    galleries.writer.put("g", new_items(9, prefix="more"), fingerprint=FINGERPRINT)
    galleries.maintenance.run()
    assert opened.snapshot.sequence == 1
    opened.next_snapshot_at = 0
    galleries.maintenance.run()
    assert opened.snapshot.sequence == 2
    galleries.writer.update_item("g", "item-001", {"camera": "c"})
    opened.next_snapshot_at = 0
    galleries.maintenance.run()
    assert opened.snapshot.sequence == 2
    galleries.close()
    assert opened.snapshot.sequence == 3


def test_small_galleries_have_no_snapshot(reopen: Callable[[], Galleries], tmp_path: Path) -> None:
    made = reopen()
    made.catalog.create("g", model="m", fingerprint=FINGERPRINT, dimension=DIMENSION)
    made.writer.put("g", new_items(2), fingerprint=FINGERPRINT)
    made.maintenance.run()
    made.close()
    assert _folders(tmp_path) == []


def test_snapshots_of_deleted_galleries_are_removed_at_the_next_start(
    galleries: Galleries, reopen: Callable[[], Galleries], tmp_path: Path
) -> None:
    galleries.close()
    galleries._store.delete_gallery("g")
    assert len(_folders(tmp_path)) == 1
    reopen()
    assert _folders(tmp_path) == []


def test_a_recreated_gallery_starts_without_a_snapshot(galleries: Galleries, reopen: Callable[[], Galleries]) -> None:
    galleries.close()
    galleries._store.delete_gallery("g")
    again = reopen()
    again.catalog.create("g", model="m", fingerprint=FINGERPRINT, dimension=DIMENSION)
    assert search(reopen(), "g", builders.unit_vectors(1)).searched == 0


def test_a_receipt_counts_what_the_disk_still_holds(
    galleries: Galleries, reopen: Callable[[], Galleries], monkeypatch: pytest.MonkeyPatch
) -> None:
    galleries.close()
    again = reopen()
    assert again.erasure.erase("g", P2).detail["left"] == {
        "store": 0,
        "memory": 0,
        "snapshot": 0,
        "log": False,
        "replicas": False,
        "backups": None,
        "jobs": 0,
    }
    p3 = Filter(identities=frozenset({"p3"}))
    there = len(again.query.items("g", p3, limit=100))
    monkeypatch.setattr(Snapshot, "erase", lambda *_: None)
    assert again.erasure.erase("g", p3).detail["left"] == {
        "store": 0,
        "memory": 0,
        "snapshot": there,
        "log": False,
        "replicas": False,
        "backups": None,
        "jobs": 0,
    }
    assert there
