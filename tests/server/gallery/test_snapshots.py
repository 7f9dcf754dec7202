"""Snapshots: the same gallery comes back, anything wrong is noticed, and nothing that was deleted stays on the disk."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.gallery import snapshots
from server.gallery.columns import View
from server.gallery.flat import FaissFlat
from server.gallery.live import LiveGallery
from server.gallery.memory import MemoryStore
from server.gallery.service import Galleries
from server.gallery.snapshots import Snapshot, Snapshots
from server.gallery.types import Filter, Gallery, Item, NewItem, VectorType
from tests.server.gallery import making
from tests.server.gallery.making import DIMENSION, FINGERPRINT, START, expected_hits, found, new_items, search

P2 = Filter(identities=frozenset({"p2"}))
PART = 5
"""Rows of a file here, so that few items make several files."""


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "_ROWS", PART)
    monkeypatch.setattr(snapshots, "_CHUNK", 2)


def _gallery(vector_type: VectorType = VectorType.FLOAT32, **changes: Any) -> Gallery:
    usual: dict[str, Any] = {"name": "g", "fingerprint": FINGERPRINT, "dimension": DIMENSION, "created_at": START}
    return Gallery(model="m", items=0, vector_type=vector_type, **{**usual, **changes})


def _build(gallery: Gallery) -> Callable[[], FaissFlat]:
    return partial(FaissFlat, gallery.dimension, gallery.vector_type)


def _put(live: LiveGallery, items: Sequence[NewItem]) -> None:
    """The row in the store is a thousand times the sequence number, and on."""
    sequence = live.sequence + 1
    vectors = np.stack([new.vector for new in items])
    live.put([new.item for new in items], np.arange(len(items)) + 1000 * sequence, vectors, sequence)


def _delete(live: LiveGallery, ids: Sequence[str]) -> None:
    live.delete(ids, live.sequence + 1)


def _held(view: View) -> list[tuple[Item, int, bytes]]:
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
def test_what_was_written_comes_back(tmp_path: Path, vector_type: VectorType, count: int) -> None:
    gallery = _gallery(vector_type)
    live = _filled(gallery, count)
    Snapshot(tmp_path / "s", gallery).write(live.view)
    told: list[int] = []
    back = Snapshot(tmp_path / "s", gallery).read(_build(gallery), told.append)
    assert back is not None
    assert (_held(back.view()), back.sequence) == (_held(live.view()), 1)
    assert sum(told) == count
    _put(back, new_items(3, seed=5, prefix="more"))
    _put(live, new_items(3, seed=5, prefix="more"))
    assert _held(back.view()) == _held(live.view())


steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.lists(making.items_strategy, min_size=1, max_size=6)),
        st.tuples(st.just("delete"), st.frozensets(making.ids, min_size=1, max_size=3)),
        st.tuples(st.sampled_from(["write", "restart", "compact"]), st.none()),
    ),
    min_size=3,
    max_size=15,
)


@settings(max_examples=40)
@given(steps=steps, vector_type=st.sampled_from(VectorType))
def test_whatever_happens_a_snapshot_is_right_and_nothing_deleted_stays(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, Any]], vector_type: VectorType
) -> None:
    """Every vector is another one, so that its bytes in a file would show that it is still there."""
    folder, gallery = tmp_path_factory.mktemp("snapshot") / "s", _gallery(vector_type)
    live, snapshot = LiveGallery(_build(gallery)()), Snapshot(folder, gallery)
    vectors: dict[str, bytes] = {}  # of items that are there
    gone: set[bytes] = set()
    for seed, (action, what) in enumerate(steps):
        if action == "put":
            new = [NewItem(item, vector) for item, vector in zip(what, making.unit_vectors(6, seed=seed), strict=False)]
            _put(live, new)
            for one in new:
                gone |= {vectors.get(one.item.id, b"")} - {b""}
                vectors[one.item.id] = one.vector.astype(vector_type.dtype).tobytes()
        elif action == "delete":
            deleted = sorted(what & vectors.keys())
            _delete(live, deleted)
            snapshot.erase(live.view())
            gone |= {vectors.pop(id) for id in deleted}
            if deleted and folder.exists():
                everything = b"".join(_bytes(folder).values())
                assert not [vector for vector in gone if vector in everything]
        elif action == "compact":
            live = live.compacted(_build(gallery))
        elif action == "write":
            snapshot.write(live.view)
            read = _read(folder, gallery)
            assert read is not None
            assert (_held(read.view()), read.sequence) == (_held(live.view()), live.sequence)
        else:
            snapshot = Snapshot(folder, gallery)
            back = snapshot.read(_build(gallery), lambda _rows: None)
            if back is not None and back.sequence == live.sequence:
                assert _held(back.view()) == _held(live.view())
                live = back


def test_a_replaced_vector_that_a_restart_has_seen_as_dead_goes_with_the_next_deletion(tmp_path: Path) -> None:
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


def test_a_deletion_while_a_snapshot_is_written_reaches_the_files_of_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery = _gallery()
    live, snapshot = _filled(gallery, 12), Snapshot(tmp_path / "s", gallery)
    snapshot.write(live.view)
    _put(live, new_items(1, prefix="more"))
    deleted = new_items(12)[11].vector.tobytes()
    calls = iter(range(100))

    def now() -> View:
        if next(calls) == 3:  # the view of the last file, which grows, has the item no more
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
    write = snapshots._write
    monkeypatch.setattr(snapshots, "_write", lambda path, blocks: (written.append(path.name), write(path, blocks))[1])
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


def test_how_far_it_is_behind(tmp_path: Path) -> None:
    gallery = _gallery()
    live, snapshot = _filled(gallery, 8), Snapshot(tmp_path / "s", gallery)
    assert snapshot.behind(live.view()) == 1
    snapshot.write(live.view)
    assert snapshot.behind(live.view()) == 0
    _put(live, new_items(2, prefix="more"))
    assert snapshot.behind(live.view()) == pytest.approx(2 / 10)
    for _ in range(3):
        live.update(new_items(1)[0].item, live.sequence + 1)
    assert snapshot.behind(live.view()) == pytest.approx(4 / 10)
    assert snapshot.behind(live.compacted(_build(gallery)).view()) == 1


def _flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def _forge(folder: Path, **changes: object) -> None:
    """A manifest that says something else, with a checksum that fits."""
    text, _ = (folder / "manifest.json").read_text().splitlines()
    (folder / "manifest.json").write_text(snapshots._sealed(json.dumps(json.loads(text) | changes)))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a bit of a vector": lambda folder: _flip(folder / "vectors-00001-5", 40),
    "a bit of the facts": lambda folder: _flip(folder / "facts-1", 900),
    "a bit of the manifest": lambda folder: _flip(folder / "manifest.json", 40),
    "no vectors": lambda folder: (folder / "vectors-00002-2").unlink(),
    "no facts": lambda folder: (folder / "facts-1").unlink(),
    "no manifest": lambda folder: (folder / "manifest.json").unlink(),
    "empty manifest": lambda folder: (folder / "manifest.json").write_bytes(b""),
    "short vectors": lambda folder: os.truncate(folder / "vectors-00000-5", 100),
    "vectors changed places": lambda folder: (folder / "vectors-00000-5").rename(folder / "vectors-00001-5"),
    "another format": lambda folder: _forge(folder, format=2),
    "fewer files": lambda folder: _forge(folder, vectors=[]),
    "another count": lambda folder: _forge(folder, count=11),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_snapshot_is_not_used_and_written_anew(
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
    assert _held(read.view()) == _held(live.view())


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
def test_a_snapshot_that_cannot_be_finished_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fail_at: int
) -> None:
    gallery = _gallery()
    live, snapshot = _filled(gallery), Snapshot(tmp_path / "s", gallery)
    snapshot.write(live.view)
    before = _held(live.view())
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
    assert _held(read.view()) in (before, _held(live.view()))
    snapshot.write(live.view)
    read = _read(tmp_path / "s", gallery)
    assert read is not None
    assert _held(read.view()) == _held(live.view())


def test_files_are_overwritten_before_they_are_taken_away(tmp_path: Path) -> None:
    """A second name keeps the bytes in sight."""
    gallery = _gallery()
    live, snapshot = _filled(gallery), Snapshot(tmp_path / "s", gallery)
    snapshot.write(live.view)
    facts, tail = tmp_path / "facts", tmp_path / "tail"
    facts.hardlink_to(tmp_path / "s" / "facts-1")
    tail.hardlink_to(tmp_path / "s" / "vectors-00002-2")
    _delete(live, ["item-000"])
    snapshot.erase(live.view())
    assert not facts.read_bytes().strip(b"\0")
    snapshot.destroy()
    assert not tail.read_bytes().strip(b"\0")
    assert not (tmp_path / "s").exists()


def test_without_a_view_nothing_is_kept(tmp_path: Path) -> None:
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
    """Galleries over the same store and the same snapshots, as after a crash or, when they were closed, a restart."""
    store = MemoryStore()
    return lambda: Galleries(store, FaissFlat, Snapshots(tmp_path / "index", least=3))


@pytest.fixture
def galleries(reopen: Callable[[], Galleries]) -> Galleries:
    made = reopen()
    made.create("g", model="m", fingerprint=FINGERPRINT, dimension=DIMENSION)
    made.put("g", new_items(20), fingerprint=FINGERPRINT)
    return made


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sequence numbers since which the store was asked to load."""
    since: list[int] = []
    load = MemoryStore.load
    monkeypatch.setattr(
        MemoryStore, "load", lambda store, name, number=0: (since.append(number), load(store, name, number))[1]
    )
    return since


def _folders(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "index").iterdir()) if (tmp_path / "index").exists() else []


def _hits(galleries: Galleries) -> list[tuple[str, float]]:
    return found(search(galleries, "g", making.unit_vectors(1, seed=77), k=100))


def _expected(items: Sequence[NewItem]) -> list[tuple[str, float]]:
    return expected_hits(items, making.unit_vectors(1, seed=77))


def test_a_restart_loads_only_what_the_snapshot_lacks(
    galleries: Galleries, reopen: Callable[[], Galleries], loads: list[int]
) -> None:
    galleries.close()
    again = reopen()
    assert loads == [1]
    more = new_items(4, seed=1, prefix="more")
    again.put("g", more, fingerprint=FINGERPRINT)
    again.put("g", new_items(2, seed=9), fingerprint=FINGERPRINT)
    again.update_item("g", "item-007", {"camera": "moved"})
    crashed = reopen()
    assert loads == [1, 1]
    items = new_items(2, seed=9) + new_items(20)[2:] + more
    assert _hits(crashed) == _expected(items)
    assert search(crashed, "g", items[0].vector, where=Filter(cameras=frozenset({"moved"}))).searched == 1
    assert crashed.progress() == {"g": (4, 4)}
    crashed.close()
    reopen()
    assert loads == [1, 1, 4]


def test_items_that_were_deleted_behind_the_snapshots_back_are_gone_from_it_too(
    galleries: Galleries, reopen: Callable[[], Galleries], tmp_path: Path
) -> None:
    """As when the server dies between the commit and the erasure."""
    galleries.close()
    (folder,) = _folders(tmp_path)
    vector = new_items(20)[3].vector.tobytes()
    assert vector in b"".join(_bytes(folder).values())
    galleries._store.delete_item("g", "item-003")
    again = reopen()
    assert vector not in b"".join(_bytes(folder).values())
    assert b"item-003" not in b"".join(_bytes(folder).values())
    assert _hits(again) == _expected([new for new in new_items(20) if new.item.id != "item-003"])


def test_a_store_that_went_back_is_believed(
    galleries: Galleries, reopen: Callable[[], Galleries], loads: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    galleries.put("g", new_items(5, seed=4, prefix="more"), fingerprint=FINGERPRINT)
    galleries.close()
    held = galleries._store._held["g"]  # type: ignore[attr-defined]
    held.sequence = 1
    held.items = {id: row for id, row in held.items.items() if not id.startswith("more")}
    assert _hits(reopen()) == _expected(new_items(20))
    assert loads == [2, 0]
    assert "it has seen change 2, the store has 1" in caplog.text


def test_a_store_that_holds_what_the_snapshot_does_not_is_believed(
    galleries: Galleries, reopen: Callable[[], Galleries], loads: list[int]
) -> None:
    galleries.close()
    held = galleries._store._held["g"]  # type: ignore[attr-defined]
    held.items["item-002"].row = 99
    assert _hits(reopen()) == _expected(new_items(20))
    assert loads == [1, 0]


@pytest.mark.parametrize("delete", ["item", "filter", "expiry", "gallery"])
def test_when_a_deletion_is_answered_no_file_holds_the_item(
    galleries: Galleries, reopen: Callable[[], Galleries], tmp_path: Path, delete: str
) -> None:
    galleries.close()
    again = reopen()
    (folder,) = _folders(tmp_path)
    new = new_items(20)[8]
    assert new.vector.tobytes() in b"".join(_bytes(folder).values())
    again.put("g", new_items(9, seed=6)[8:], fingerprint=FINGERPRINT)  # the older vector must go, too
    if delete == "item":
        again.delete_item("g", new.item.id)
    elif delete == "filter":
        again.erase("g", P2)
    elif delete == "expiry":
        again.update("g", {"retention_days": 1})
        again.expire(START.replace(year=9000))
    else:
        again.delete("g")
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


def test_snapshots_are_written_when_much_has_changed_and_not_again_and_again(
    galleries: Galleries, tmp_path: Path
) -> None:
    opened = galleries._opened["g"]
    assert opened.snapshot is not None
    galleries.maintain()
    assert opened.snapshot.sequence == 1
    galleries.put("g", new_items(9, prefix="more"), fingerprint=FINGERPRINT)
    galleries.maintain()
    assert opened.snapshot.sequence == 1
    opened.snapshot_after = 0
    galleries.maintain()
    assert opened.snapshot.sequence == 2
    galleries.update_item("g", "item-001", {"camera": "c"})
    opened.snapshot_after = 0
    galleries.maintain()
    assert opened.snapshot.sequence == 2
    galleries.close()
    assert opened.snapshot.sequence == 3


def test_small_galleries_have_none(reopen: Callable[[], Galleries], tmp_path: Path) -> None:
    made = reopen()
    made.create("g", model="m", fingerprint=FINGERPRINT, dimension=DIMENSION)
    made.put("g", new_items(2), fingerprint=FINGERPRINT)
    made.maintain()
    made.close()
    assert _folders(tmp_path) == []


def test_snapshots_of_galleries_that_are_gone_are_taken_away_at_the_next_start(
    galleries: Galleries, reopen: Callable[[], Galleries], tmp_path: Path
) -> None:
    galleries.close()
    galleries._store.delete_gallery("g")
    assert len(_folders(tmp_path)) == 1
    reopen()
    assert _folders(tmp_path) == []


def test_a_gallery_made_again_under_its_name_begins_without_one(
    galleries: Galleries, reopen: Callable[[], Galleries]
) -> None:
    galleries.close()
    galleries._store.delete_gallery("g")
    again = reopen()
    again.create("g", model="m", fingerprint=FINGERPRINT, dimension=DIMENSION)
    assert search(reopen(), "g", making.unit_vectors(1)).searched == 0


def test_a_receipt_counts_what_the_disk_really_holds(
    galleries: Galleries, reopen: Callable[[], Galleries], monkeypatch: pytest.MonkeyPatch
) -> None:
    galleries.close()
    again = reopen()
    assert again.erase("g", P2).detail["left"] == {"store": 0, "memory": 0, "snapshot": 0, "log": False, "jobs": 0}
    p3 = Filter(identities=frozenset({"p3"}))
    there = len(again.items("g", p3, limit=100))
    monkeypatch.setattr(Snapshot, "erase", lambda *_: None)
    assert again.erase("g", p3).detail["left"] == {"store": 0, "memory": 0, "snapshot": there, "log": False, "jobs": 0}
    assert there
