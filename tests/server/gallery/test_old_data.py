"""Data directories that earlier versions wrote are opened, migrated, and hold what was put into them."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server.access import Keys
from server.audit import Audit
from server.errors import ItemNotFound
from server.gallery.flat import FaissFlat
from server.gallery.service import Galleries
from server.gallery.store import SqlStore
from server.gallery.types import Filter, NewItem
from tests.fixtures.make import FOLDER, said
from tests.server.gallery.making import expected_hits, found, new_items, search, unit_vectors

VERSIONS = sorted(FOLDER.glob("v*"))


@pytest.fixture(params=VERSIONS, ids=lambda folder: folder.name)
def version(request: pytest.FixtureRequest) -> Path:
    folder: Path = request.param
    return folder


@pytest.fixture
def expected(version: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((version / "expected.json").read_text())
    return read


@pytest.fixture
def store(version: Path, tmp_path: Path) -> Iterator[SqlStore]:
    with tarfile.open(version / "data.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    with closing(SqlStore(f"sqlite:///{tmp_path}/vireid.db")) as opened:
        opened.check()
        yield opened


def _thumbnail(store: SqlStore, name: str, id: str) -> bytes | None:
    try:
        return store.thumbnail(name, id)
    except ItemNotFound:
        return None


def _held(store: SqlStore, name: str) -> list[NewItem]:
    items = store.items(name, Filter(), limit=1000)
    return [NewItem(item, store.vector(name, item.id)[1], _thumbnail(store, name, item.id)) for item in items]


def test_there_is_one_of_every_released_version() -> None:
    assert [folder.name for folder in VERSIONS][:1] == ["v0001"]


def test_old_data_is_all_there(store: SqlStore, expected: dict[str, Any]) -> None:
    assert [gallery.name for gallery in store.galleries()] == sorted(expected["galleries"])
    for gallery in store.galleries():
        wanted = expected["galleries"][gallery.name]
        assert (gallery.retention_days, gallery.description) == (wanted["retention_days"], wanted["description"])
        assert {new.item.id: said(new) for new in _held(store, gallery.name)} == wanted["items"]
        assert gallery.items == len(wanted["items"])
        assert store.sequences()[gallery.name] == wanted["sequence"]
    assert store.aliases() == expected.get("aliases", {})
    assert [receipt.id for receipt in store.erasures(limit=10)] == expected.get("erasures", [])
    key = Keys(store.engine).verify(expected["secret"])
    assert (key.name, key.galleries) == ("reader", frozenset({"door"}))
    assert [entry.action for entry in Audit(store.engine).list(10)] == expected["actions"]


def test_old_data_is_searched_as_brute_force_finds_it(store: SqlStore, expected: dict[str, Any]) -> None:
    galleries = Galleries(store, FaissFlat)
    query = unit_vectors(2, seed=7)
    for name in expected["galleries"]:
        assert found(search(galleries, name, query, k=100)) == expected_hits(_held(store, name), query)


def test_old_data_is_written_to_and_its_changes_are_told_from_what_was_there(store: SqlStore) -> None:
    galleries = Galleries(store, FaissFlat)
    before = store.sequences()["door"]
    galleries.put("door", new_items(2, seed=9), fingerprint=galleries.get("door").fingerprint)
    galleries.update_item("door", "item-020", {"camera": "new"})
    with store.load("door", before) as loaded:
        changed = {
            item.id: vector for chunk in loaded.chunks for item, vector in zip(chunk.items, chunk.vectors, strict=True)
        }
        assert loaded.sequence == before + 2
    assert changed.keys() == {"item-000", "item-001", "item-020"}
    np.testing.assert_array_equal(changed["item-001"], new_items(2, seed=9)[1].vector)
    assert len(store.delete_items("door", Filter()).ids) == 38
