"""The audit log: entries are complete, ordered and paged."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from server.domain.errors import NotReady, StorageFull
from server.storage.audit_log import AuditLog, RequestReference, request_reference
from server.storage.sql_store import SqlStore
from server.storage.transactions import writing


@pytest.fixture
def store(database_url: str) -> Iterator[SqlStore]:
    made = SqlStore(database_url)
    yield made
    made.close()


@pytest.fixture
def audit(store: SqlStore) -> AuditLog:
    return AuditLog(store.engine)


def test_an_audit_entry_is_read_as_it_was_recorded(audit: AuditLog) -> None:
    audit.record("key_1", "search", "door", {"images": 2, "filter": {"camera": "c1"}, "reason": None})
    audit.record(None, "galleries.create", None, {})
    second, first = audit.list(10)
    assert (first.key_id, first.action, first.gallery) == ("key_1", "search", "door")
    assert first.detail == {"images": 2, "filter": {"camera": "c1"}, "reason": None}
    assert (second.key_id, second.action, second.gallery, second.detail) == (None, "galleries.create", None, {})
    assert timedelta() <= datetime.now(UTC) - first.at < timedelta(minutes=1)


def test_entries_are_paged_newest_first(audit: AuditLog) -> None:
    for number in range(7):
        audit.record(None, f"action {number}", None, {})
    pages, after = [], None
    while page := audit.list(3, after):
        pages.append([entry.action for entry in page])
        after = page[-1].number
    assert pages == [["action 6", "action 5", "action 4"], ["action 3", "action 2", "action 1"], ["action 0"]]


def test_entries_survive_a_restart(database_url: str) -> None:
    for number in range(2):
        store = SqlStore(database_url)
        AuditLog(store.engine).record(None, f"start {number}", None, {})
        actions = [entry.action for entry in AuditLog(store.engine).list(10)]
        store.close()
    assert actions == ["start 1", "start 0"]


def test_entries_of_many_threads_are_all_kept(audit: AuditLog) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: audit.record(None, f"{number}", None, {}), range(40)))
    entries = audit.list(100)
    assert {entry.action for entry in entries} == {str(number) for number in range(40)}
    assert [entry.number for entry in entries] == sorted((entry.number for entry in entries), reverse=True)


def _tamper(store: SqlStore, statement: str) -> None:
    with writing(store.engine) as connection:
        connection.exec_driver_sql(statement)


def test_an_intact_chain_is_verified_across_a_restart(audit: AuditLog, store: SqlStore) -> None:
    assert audit.verify().problem is None
    for number in range(5):
        audit.record("key_1", f"action {number}", "door", {"score": 0.1 + number, "text": "é\ud800", "list": [None]})
    found = AuditLog(store.engine).verify()
    newest = audit.list(1)[0]
    assert (found.problem, found.entries, found.first, found.last, found.unchained) == (None, 5, 1, 5, 0)
    assert found.digest == newest.digest == newest.compute_digest()
    assert [entry.previous for entry in audit.list(4)] == [entry.digest for entry in audit.list(5)[1:]]
    assert audit.verify(number=5, digest=found.digest).problem is None
    assert audit.verify(number=3, digest=audit.list(3)[-1].digest).problem is None


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("UPDATE audit SET action = 'x' WHERE number = 3", "entry 3 was changed"),
        ("UPDATE audit SET detail = '{}' WHERE number = 3", "entry 3 was changed"),
        ("UPDATE audit SET key_id = NULL WHERE number = 3", "entry 3 was changed"),
        ("UPDATE audit SET reason = 'x' WHERE number = 3", "entry 3 was changed"),
        ("UPDATE audit SET at = at - 1 WHERE number = 3", "entry 3 was changed"),
        ("UPDATE audit SET digest = NULL WHERE number = 3", "entry 3 has no digest"),
        ("DELETE FROM audit WHERE number = 3", "entries between 2 and 4 are missing"),
        ("DELETE FROM audit WHERE number < 3", "entries before 3 are missing"),
        ("DELETE FROM audit WHERE number > 3", "entries up to 5 are missing at the end"),
    ],
)
def test_a_changed_log_is_detected(audit: AuditLog, store: SqlStore, statement: str, problem: str) -> None:
    for number in range(5):
        audit.record("key_1", f"action {number}", None, {"n": number})
    noted = audit.verify()
    _tamper(store, statement)
    assert audit.verify(number=noted.last, digest=noted.digest).problem == problem


def test_the_chain_starts_after_entries_of_earlier_versions(audit: AuditLog, store: SqlStore) -> None:
    for number in range(3):
        audit.record(None, f"old {number}", None, {})
    _tamper(store, "UPDATE audit SET digest = NULL, previous = NULL")
    audit.record(None, "new", None, {})
    found = audit.verify()
    assert (found.problem, found.unchained, found.entries, found.first) == (None, 3, 1, 4)
    audit.prune(audit.list(1)[0].at)
    assert audit.verify().problem is None


def test_the_rest_of_a_pruned_chain_is_verifiable(audit: AuditLog, store: SqlStore) -> None:
    for number in range(6):
        audit.record(None, f"action {number}", None, {})
    entries = audit.list(10)
    assert audit.prune(entries[2].at) == 3
    assert [entry.action for entry in audit.list(10)] == ["audit.prune", "action 5", "action 4", "action 3"]
    found = audit.verify()
    assert (found.problem, found.first, found.last, found.pruned_through) == (None, 4, 7, 3)
    assert audit.prune(entries[2].at) == 0
    assert audit.prune(datetime.now(UTC)) == 3
    assert audit.verify().problem is None
    _tamper(store, "DELETE FROM audit WHERE action = 'audit.prune' AND number < 8")
    assert audit.verify().problem is not None


def test_an_action_that_must_be_recorded_fails_if_it_cannot_be(
    audit: AuditLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_args: object) -> None:
        raise StorageFull

    monkeypatch.setattr("server.storage.audit_log._append", full)
    with pytest.raises(NotReady):
        audit.require(None, "search", "door", {})
    audit.record(None, "items.put", "door", {})
    assert audit.list(10) == []


def test_entries_hold_the_case_and_the_reason_of_the_request(audit: AuditLog) -> None:
    token = request_reference.set(RequestReference("C-17", "missing person"))
    audit.record(None, "search", None, {})
    request_reference.reset(token)
    audit.record(None, "search", None, {})
    second, first = audit.list(2)
    assert (first.case_reference, first.reason) == ("C-17", "missing person")
    assert (second.case_reference, second.reason) == (None, None)
