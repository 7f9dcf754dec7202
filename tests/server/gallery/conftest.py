"""Stores to hold the contract tests against."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from server.gallery.memory import MemoryStore
from server.gallery.store import SqlStore, Store


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/data/vireid.db"


@pytest.fixture
def sql_store(url: str) -> Iterator[SqlStore]:
    store = SqlStore(url)
    yield store
    store.close()


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest) -> Store:
    """Each kind of store, empty."""
    if request.param == "memory":
        return MemoryStore()
    made: SqlStore = request.getfixturevalue("sql_store")
    return made
