"""The audit trail keeps what was done, in order."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from server.audit import Audit
from server.gallery.store import SqlStore


@pytest.fixture
def audit(tmp_path: Path) -> Iterator[Audit]:
    store = SqlStore(f"sqlite:///{tmp_path}/vireid.db")
    yield Audit(store.engine)
    store.close()


def test_an_entry_comes_back_as_it_was_recorded(audit: Audit) -> None:
    audit.record("key_1", "search", "door", {"images": 2, "filter": {"camera": "c1"}, "reason": None})
    audit.record(None, "galleries.create", None, {})
    second, first = audit.list(10)
    assert (first.key_id, first.action, first.gallery) == ("key_1", "search", "door")
    assert first.detail == {"images": 2, "filter": {"camera": "c1"}, "reason": None}
    assert (second.key_id, second.action, second.gallery, second.detail) == (None, "galleries.create", None, {})
    assert timedelta() <= datetime.now(UTC) - first.at < timedelta(minutes=1)


def test_entries_are_paged_newest_first(audit: Audit) -> None:
    for number in range(7):
        audit.record(None, f"action {number}", None, {})
    pages, after = [], None
    while page := audit.list(3, after):
        pages.append([entry.action for entry in page])
        after = page[-1].number
    assert pages == [["action 6", "action 5", "action 4"], ["action 3", "action 2", "action 1"], ["action 0"]]


def test_entries_survive_a_restart(audit: Audit, tmp_path: Path) -> None:
    path = tmp_path / "again" / "vireid.db"
    for number in range(2):
        store = SqlStore(f"sqlite:///{path}")
        Audit(store.engine).record(None, f"start {number}", None, {})
        actions = [entry.action for entry in Audit(store.engine).list(10)]
        store.close()
    assert actions == ["start 1", "start 0"]


def test_entries_of_many_threads_are_all_kept(audit: Audit) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: audit.record(None, f"{number}", None, {}), range(40)))
    entries = audit.list(100)
    assert {entry.action for entry in entries} == {str(number) for number in range(40)}
    assert [entry.number for entry in entries] == sorted((entry.number for entry in entries), reverse=True)
