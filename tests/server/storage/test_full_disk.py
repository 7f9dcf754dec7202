"""Full disk: writes are refused as a whole, deletions still work, and writes succeed once there is room."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from server.domain.errors import StorageFull
from server.domain.types import Filter, NewItem
from server.storage.sql_store import SqlStore
from tests.server.gallery.builders import new_item, unit_vectors
from tests.server.storage.test_store import contents, gallery
from tests.small_disk import OTHERS, fill, small_disk

_SECRET = b"the image of a person " * 200


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MB."""
    with small_disk(tmp_path / "disk", 16) as folder:
        yield folder


@pytest.fixture
def store(disk: Path) -> Iterator[SqlStore]:
    made = SqlStore(f"sqlite:///{disk}/vireid.db")
    made.create_gallery(gallery())
    yield made
    made.close()


def _items(start: int, count: int, *, identity: str = "p", thumbnail: bytes = bytes(6000)) -> list[NewItem]:
    vectors = unit_vectors(count, seed=start)
    return [
        new_item(f"{n:05d}", vector, identity=identity, thumbnail=thumbnail) for n, vector in enumerate(vectors, start)
    ]


def _fill(store: SqlStore, disk: Path) -> int:
    """Fill gallery and disk; the number of items that the store took."""
    size = 64
    stored = store.gallery("g").items
    while size:
        try:
            store.put("g", _items(10_000 + stored, size))
            stored += size
        except StorageFull:
            size //= 2
    fill(disk)
    return stored


def _files(disk: Path) -> bytes:
    return b"".join(path.read_bytes() for path in disk.iterdir() if path.is_file())


@pytest.mark.parametrize(
    "erase",
    [
        lambda store: store.delete_item("g", "00020"),
        lambda store: store.delete_items("g", Filter(identities=frozenset({"Jane Doe"}))),
        lambda store: store.delete_gallery("g"),
    ],
    ids=["one item", "a person", "the gallery"],
)
def test_on_a_full_disk_erasing_works_and_leaves_no_trace(
    store: SqlStore, disk: Path, erase: Callable[[SqlStore], object]
) -> None:
    store.put("g", _items(20, 1, identity="Jane Doe", thumbnail=_SECRET))
    stored = _fill(store, disk)
    with pytest.raises(StorageFull):
        store.put("g", _items(90_000, 64))
    assert _SECRET in _files(disk)
    before = contents(store, "g")
    assert len(before[1]) == stored
    erase(store)
    assert store.scrub()
    assert _SECRET not in _files(disk)
    assert b"Jane Doe" not in _files(disk)
    if store.galleries():
        sequence, left = contents(store, "g")
        assert sequence == before[0] + 1
        assert left == {id: held for id, held in before[1].items() if id != "00020"}
    store.check()


def test_many_items_are_erased_in_steps_on_a_full_disk(store: SqlStore, disk: Path) -> None:
    for start in range(0, 400, 100):
        store.put("g", _items(start, 50, identity="Jane Doe") + _items(start + 50, 50))
    _fill(store, disk)
    seen: list[str] = []
    sequences = [store.sequence_numbers()["g"]]

    def then(deleted: object) -> None:
        seen.extend(deleted.ids)  # type: ignore[attr-defined]
        sequences.append(deleted.sequence)  # type: ignore[attr-defined]

    deleted = store.delete_items("g", Filter(identities=frozenset({"Jane Doe"})), then)
    assert (len(deleted.ids), deleted.vectors, deleted.thumbnails) == (200, 200, 200)
    assert seen == deleted.ids
    assert sequences == list(range(sequences[0], sequences[0] + len(sequences)))
    assert sequences[-1] == deleted.sequence == store.sequence_numbers()["g"]
    assert store.items("g", Filter(identities=frozenset({"Jane Doe"})), limit=1) == []


def test_a_store_on_a_full_disk_opens_and_accepts_writes_once_there_is_room(disk: Path) -> None:
    url = f"sqlite:///{disk}/vireid.db"
    store = SqlStore(url)
    store.create_gallery(gallery())
    _fill(store, disk)
    before = contents(store, "g")
    store.close()

    store = SqlStore(url)
    store.check()
    assert contents(store, "g") == before
    _fill(store, disk)
    store.delete_item("g", min(before[1]))
    (disk / OTHERS).unlink()
    store.delete_items("g", Filter())
    assert store.put("g", _items(90_000, 64)).statuses == ["added"] * 64
    store.check()
    store.close()
