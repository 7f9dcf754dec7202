"""Data directories of earlier versions are migrated and keep their contents."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server.domain.errors import ItemNotFound
from server.domain.types import Filter, NewItem
from server.gallery.galleries import Galleries
from server.index.exact import ExactIndex
from server.storage.api_keys import ApiKeys
from server.storage.audit_log import AuditLog
from server.storage.sql_store import SqlStore
from tests.fixtures.make import FOLDER, item_as_json
from tests.server.gallery.builders import expected_hits, found, new_items, search, unit_vectors

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


def test_every_released_version_has_a_fixture() -> None:
    assert [folder.name for folder in VERSIONS][:1] == ["v0001"]


def test_old_data_is_complete(store: SqlStore, expected: dict[str, Any]) -> None:
    assert [gallery.name for gallery in store.galleries()] == sorted(expected["galleries"])
    for gallery in store.galleries():
        expected_gallery = expected["galleries"][gallery.name]
        assert (gallery.retention_days, gallery.description) == (
            expected_gallery["retention_days"],
            expected_gallery["description"],
        )
        assert {new.item.id: item_as_json(new) for new in _held(store, gallery.name)} == expected_gallery["items"]
        assert gallery.items == len(expected_gallery["items"])
        assert store.sequence_numbers()[gallery.name] == expected_gallery["sequence"]
    assert store.aliases() == expected.get("aliases", {})
    assert [receipt.id for receipt in store.erasures(limit=10)] == expected.get("erasures", [])
    key = ApiKeys(store.engine).verify(expected["secret"])
    assert (key.name, key.galleries) == ("reader", frozenset({"door"}))
    assert [entry.action for entry in AuditLog(store.engine).list(10)] == expected["actions"]


def test_limits_of_keys_and_the_hash_chain_of_old_data_hold(store: SqlStore, expected: dict[str, Any]) -> None:
    log = AuditLog(store.engine)
    found = log.verify()
    chained = expected.get("chained", 0)
    assert (found.problem, found.entries, found.unchained) == (None, chained, len(expected["actions"]) - chained)
    log.record(None, "new", None, {})
    after = log.verify()
    assert (after.problem, after.entries) == (None, chained + 1)
    if (guard := expected.get("guard")) is not None:
        key = ApiKeys(store.engine).verify(guard["secret"])
        assert key.expires_at is not None
        assert (key.expires_at.isoformat(), key.requests_per_minute) == (
            guard["expires_at"],
            guard["requests_per_minute"],
        )
        assert key.galleries == frozenset({"gate"})
        assert log.list(2)[1].case_reference == "2026/17"


def test_search_of_old_data_equals_brute_force(store: SqlStore, expected: dict[str, Any]) -> None:
    galleries = Galleries(store, ExactIndex)
    query = unit_vectors(2, seed=7)
    for name in expected["galleries"]:
        assert found(search(galleries, name, query, k=100)) == expected_hits(_held(store, name), query)


def test_old_data_accepts_writes_and_loads_only_the_changes(store: SqlStore) -> None:
    galleries = Galleries(store, ExactIndex)
    before = store.sequence_numbers()["door"]
    galleries.writer.put("door", new_items(2, seed=9), fingerprint=galleries.catalog.get("door").fingerprint)
    galleries.writer.update_item("door", "item-020", {"camera": "new"})
    with store.load("door", before) as loaded:
        changed = {
            item.id: vector for chunk in loaded.chunks for item, vector in zip(chunk.items, chunk.vectors, strict=True)
        }
        assert loaded.sequence == before + 2
    assert changed.keys() == {"item-000", "item-001", "item-020"}
    np.testing.assert_array_equal(changed["item-001"], new_items(2, seed=9)[1].vector)
    assert len(store.delete_items("door", Filter()).ids) == 38
